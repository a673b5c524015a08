"""How a device is called that is created by itself. Pure."""

from __future__ import annotations

import re
from typing import Final

from cloud.model.suggestion import plain_title
from sync.registry import Alias

PLACES: Final = ("network", "key", "alias")
"""What a template may have in braces."""
_PLACE: Final = re.compile(r"\{([^{}]*)\}")


class TemplateError(Exception):
    """A template of names that none can be made from; the text says why."""


def check_template(template: str) -> None:
    """Raises TemplateError."""
    named = _PLACE.findall(template)
    unknown = [name for name in named if name not in PLACES]
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in PLACES)
        raise TemplateError(f"{{{unknown[0]}}} is not known; known are {known}")
    if "alias" not in named:
        raise TemplateError("has no {alias}: all devices would have one name")


def device_name(template: str, alias: Alias) -> str:
    """Made from a template that was checked."""
    values = dict(zip(PLACES, (alias.network_id, alias.alias_key, alias.alias), strict=True))
    return plain_title(_PLACE.sub(lambda match: values.get(match[1], match[0]), template))
