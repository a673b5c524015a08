"""Templates of topics and paths, which say whose message one is: `sensors/{serial}/up`.

Levels are divided by `/`. `+` stands for any one level, and `#`, as the last level, for all that follow, none included
(MQTT 3.1.1, section 4.7). One level may hold `{key}`: what stands there is the device's alias under the alias key
`key`, also with letters around it (`dev-{serial}`). Without any, the topic fits and names nobody: the payload does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from protocols.limits import NAME_BYTES_MAX, TOPIC_BYTES_MAX

TEMPLATES_MAX: Final = 64
"""Of one listener; the first topic of a device is held against all of them."""

_FIELD: Final = re.compile(r"^(?P<before>[^{}]*)\{(?P<key>[^{}]*)\}(?P<after>[^{}]*)$")


class TemplateError(ValueError):
    """What is wrong with a template, for whoever wrote it."""


class Name(msgspec.Struct, frozen=True):
    """Whose message it is; both empty where the template does not say."""

    alias_key: str
    alias: str


NOBODY: Final = Name("", "")


class Template:
    """One template, read once."""

    def __init__(self, text: str) -> None:
        """Raises TemplateError."""
        self.text = text
        self.alias_key = ""
        """Of its field; empty: it has none."""
        if not 0 < len(text.encode()) <= TOPIC_BYTES_MAX:
            raise TemplateError(f"{text[:40]!r}: a template has 1 to {TOPIC_BYTES_MAX} bytes")
        levels = text.split("/")
        patterns = [self._level(level) for level in levels]
        tail = ""
        if levels[-1] == "#":
            patterns.pop()
            tail = "(?:/.*)?" if patterns else ".*"
        elif "#" in levels:
            raise TemplateError(f"{text!r}: # must be the last level")
        # $SYS and its like are no devices' (section 4.7.2), unless the template asks for them by name.
        head = "" if levels[0].startswith("$") else r"(?!\$)"
        self._pattern = re.compile(head + "/".join(patterns) + tail, re.DOTALL)
        self.topic_filter = "/".join("+" if "{" in level else level for level in levels)
        """The MQTT topic filter that gets all that fits, and little else."""

    def match(self, topic: str) -> Name | None:
        """None: it does not fit, or what stands for the alias is longer than an alias may be; or it holds the character
        U+0000, which no database text can."""
        found = self._pattern.fullmatch(topic)
        if found is None or "\0" in topic:
            return None
        if not self.alias_key:
            return NOBODY
        alias = found["alias"]
        return Name(self.alias_key, alias) if len(alias.encode()) <= NAME_BYTES_MAX else None

    def fill(self, alias: str) -> str:
        """The topic of the device: what a command goes to. Raises TemplateError where the topic could be another
        device's, or where the template is not for one topic."""
        if not self.alias_key or any(level in ("+", "#") for level in self.text.split("/")):
            raise TemplateError(f"{self.text!r} is not the topic of one device")
        if not alias or any(mark in alias for mark in "/+#\0"):
            raise TemplateError(f"{alias!r} cannot be a level of a topic")
        return self.text.replace(f"{{{self.alias_key}}}", alias)

    def _level(self, level: str) -> str:
        if level == "+":
            return "[^/]*"
        if level == "#":
            return level
        if "{" not in level and "}" not in level:
            if "+" in level or "#" in level:
                raise TemplateError(f"{self.text!r}: + and # must be a whole level")
            return re.escape(level)
        field = _FIELD.match(level)
        if field is None or not 0 < len(field["key"].encode()) <= NAME_BYTES_MAX:
            raise TemplateError(f"{self.text!r}: {level!r} must be one {{key}} with text around it")
        if self.alias_key:
            raise TemplateError(f"{self.text!r}: there may be one {{key}}, as a device has one alias; + fits any level")
        if "+" in level or "#" in level:
            raise TemplateError(f"{self.text!r}: + and # must be a whole level")
        self.alias_key = field["key"]
        return f"{re.escape(field['before'])}(?P<alias>[^/]+){re.escape(field['after'])}"


class Templates:
    """Several: the first that fits counts."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Raises TemplateError."""
        self.all = tuple(Template(text) for text in texts)

    def match(self, topic: str) -> Name | None:
        """None: the topic is of no template."""
        for template in self.all:
            name = template.match(topic)
            if name is not None:
                return name
        return None
