"""Configuration: a TOML file and environment variables into one frozen, typed object.

A configuration is a tree of frozen `msgspec.Struct`s that forbid unknown fields. Every default stands beside its
documentation:

    class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        max_bytes: Annotated[int, msgspec.Meta(ge=LOG_BYTES_MIN, description="Hard cap of the log on disk.")] = 2 * GIB

The environment wins over the file. `PREFIX_LOG__MAX_BYTES` sets `log.max_bytes`, `PREFIX_NAME` sets `name`; lists and
tables are written as JSON. A name with `__` that fits no setting is an error; one without is not, as others set such
names too (Kubernetes, for its services).
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from tidegate.console import UserError
from tidegate.logs import REDACTED, is_secret, redact_text
from tidegate.settings import Setting, alternatives, counted, settings, struct_of, table_of
from tidegate.toml_lines import line_of

__all__ = ["ConfigError", "Setting", "load", "loads", "parse", "settings"]

T = TypeVar("T", bound=msgspec.Struct)

CONFIG_BYTES_MAX: Final = 1 << 20
"""A file of more is not a configuration but a mistake in the path."""
SHOWN_CHARS_MAX: Final = 60
"""A wrong value is shown to be recognised, not to be read in full."""

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_LIMIT = re.compile(r"^Expected `(?:int|float)` (?P<sign>>=|<=|>|<) (?P<limit>.+)$")
_LENGTH = re.compile(r"^Expected `(?P<type>str|array|object|bytes)` of length (?P<sign>>=|<=|==) (?P<limit>\d+)$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")
_ONE_TABLE: Final = "Expected `array`, got `object`"
_TOML_PLACE = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")

_LIMIT_WORDS: Final = {
    ">=": "is below the minimum",
    "<=": "is above the maximum",
    ">": "is not above",
    "<": "is not below",
}
_LENGTH_WORDS: Final = {">=": "at least", "<=": "at most", "==": "exactly"}
_NOUNS: Final = {"str": "character", "array": "item", "object": "item", "bytes": "byte"}
_TRUTH: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class ConfigError(UserError):
    """The configuration cannot be used; the message names the file or variable, the setting and the limit."""


def load(
    kind: type[T],
    *,
    file: Path | None,
    env_prefix: str,
    environ: Mapping[str, str] = os.environ,
    decode: Callable[[type, Any], Any] | None = None,
) -> T:
    """The configuration of `kind` from `file` (None: defaults only) and variables that begin with `env_prefix`.
    `decode` makes values of types that neither TOML nor msgspec has, or raises ValueError; a path is known here.

    Raises ConfigError for the first thing that is wrong.
    """
    text = None if file is None else _read(file)
    return _made(kind, str(file), text, env_prefix, environ, decode or _decode)


def loads(kind: type[T], text: str, *, name: str) -> T:
    """The configuration of `kind` from a text, which errors call `name`, and from nothing else. Raises ConfigError."""
    return _made(kind, name, text, "", {}, _decode)


def _made(
    kind: type[T],
    name: str,
    text: str | None,
    env_prefix: str,
    environ: Mapping[str, str],
    decode: Callable[[type, Any], Any],
) -> T:
    """`name`: of the text."""
    tree = {} if text is None else parse(name, text)
    set_by = _override(tree, kind, env_prefix.rstrip("_") + "_", environ)
    try:
        return msgspec.convert(tree, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        what, path = _parts(error)
        source = _variable_of(path, set_by) or _source_of(name, text, what, path)
        raise _field_error(kind, tree, what, path, source) from None


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}", "give the path of a readable TOML file") from None
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError(f"{file}: more than {CONFIG_BYTES_MAX} bytes", "give the path of a configuration file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: not UTF-8", "save the file as UTF-8") from None


def parse(name: str, text: str) -> dict[str, Any]:
    """TOML, not checked any further; errors call the text `name`. Raises ConfigError."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _syntax_error(name, "nested too deeply") from None
    except ValueError as error:  # also a number of too many digits
        raise _syntax_error(name, str(error)) from None


def _syntax_error(name: str, text: str) -> ConfigError:
    remedy = "text stands in quotes, a table begins with [name]; see https://toml.io"
    found = _TOML_PLACE.match(text)
    if found is None:
        return ConfigError(f"{name}: not valid TOML: {text}", remedy)
    place = f"line {found['line']}, column {found['column']}" if found["line"] else "at its end"
    return ConfigError(f"{name}, {place}: not valid TOML: {found['what']}", remedy)


def _override(
    tree: dict[str, Any], kind: type[msgspec.Struct], prefix: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """Puts what the environment sets into the tree; returns which variable set which path."""
    set_by = {}
    for name in sorted(environ):  # a table as a whole comes before its fields
        if not name.startswith(prefix):
            continue
        words = name.removeprefix(prefix).lower().split("__")
        field = _find(struct_of(kind), words)
        if field is not None:
            path = ".".join(words)
            _place(tree, words, _from_text(field, environ[name], name, path))
            set_by[path] = name
        elif len(words) > 1:
            raise _unknown_variable(kind, prefix, name)
    return set_by


def _unknown_variable(kind: type[msgspec.Struct], prefix: str, name: str) -> ConfigError:
    known = [setting.environment for setting in settings(kind, env_prefix=prefix) if setting.environment]
    close = difflib.get_close_matches(name, known, 1)
    return ConfigError(f"{name}: no setting has this name", close[0] if close else f"unset {name}")


def _find(struct: inspect.StructType, words: list[str]) -> inspect.Type | None:
    for field in struct.fields:
        if field.encode_name == words[0]:
            if len(words) == 1:
                return field.type
            inner = table_of(field.type)
            return _find(inner, words[1:]) if inner else None
    return None


def _from_text(field: inspect.Type, text: str, name: str, path: str) -> Any:
    """The value that a variable's text stands for, as TOML would have given it; `convert` checks it later."""
    kinds = {type(part) for part in alternatives(field)}
    if kinds & {inspect.StrType, inspect.CustomType, inspect.EnumType, inspect.LiteralType, inspect.BytesType}:
        return text
    if inspect.BoolType in kinds and text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if kinds <= {inspect.IntType, inspect.FloatType, inspect.BoolType, inspect.NoneType}:
            return text  # the type check says what was expected better than a JSON parser does
        remedy = 'write lists as ["a", "b"], tables as {"a": 1}'
        raise ConfigError(f"{name}: {path}: {_shown(text, path)} is not JSON", remedy) from None


def _place(tree: dict[str, Any], words: list[str], value: Any) -> None:
    for word in words[:-1]:
        below = tree.setdefault(word, {})
        if not isinstance(below, dict):
            return  # the file has no table here, and the type check says so
        tree = below
    tree[words[-1]] = value


def _decode(kind: type, value: Any) -> Any:
    if kind is not Path:
        raise NotImplementedError(f"a setting cannot be of type {kind}")
    if not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")  # msgspec takes it for a wrong value
    return Path(value)


def _parts(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and the dotted path of where; empty for the whole."""
    found = _AT.match(str(error))
    assert found is not None  # the pattern takes any text
    return found["what"], (found["path"] or "$").removeprefix("$").removeprefix(".")


def _variable_of(path: str, set_by: Mapping[str, str]) -> str | None:
    """The variable that set the value at `path`, or something it lies within."""
    within = [known for known in set_by if path == known or path.startswith((f"{known}.", f"{known}["))]
    return set_by[max(within, key=len)] if within else None


def _source_of(name: str, text: str | None, what: str, path: str) -> str:
    """The text's name, and the line in it, where it is to be mended."""
    if text is None:
        return "configuration"
    unknown = _UNKNOWN.match(what)
    line = line_of(text, f"{path}.{unknown['name']}".lstrip(".") if unknown else path)
    return name if line is None else f"{name}, line {line}"


def _field_error(kind: type[msgspec.Struct], tree: Mapping[str, Any], what: str, path: str, source: str) -> ConfigError:
    if unknown := _UNKNOWN.match(what):
        return _unknown_setting(kind, source, f"{path}.{unknown['name']}".lstrip("."))
    if missing := _MISSING.match(what):
        full = f"{path}.{missing['name']}".lstrip(".")
        return ConfigError(f"{source}: {full}: required, and not set", f"set {full}")
    value = _value_at(tree, path)
    if isinstance(value, Mapping) and not what.startswith("Expected"):  # what the table's own check says of it
        return ConfigError(": ".join(filter(None, (source, path, what))))
    if isinstance(value, Mapping) and what == _ONE_TABLE:
        return ConfigError(f"{source}: {path}: there may be several of it, each in a table", f"write [[{path}]]")
    shown = _shown(value, path)
    if limit := _LIMIT.match(what):
        return ConfigError(f"{source}: {path}: {shown} {_LIMIT_WORDS[limit['sign']]} {limit['limit']}")
    if length := _LENGTH.match(what):
        bound = f"{_LENGTH_WORDS[length['sign']]} {counted(int(length['limit']), _NOUNS[length['type']])}"
        return ConfigError(f"{source}: {path}: {shown} does not have {bound}")
    plain = what.replace("`", "")
    return ConfigError(f"{source}: {path}: {shown}: {plain[:1].lower()}{plain[1:]}")


def _unknown_setting(kind: type[msgspec.Struct], source: str, path: str) -> ConfigError:
    known = [setting.path for setting in settings(kind, env_prefix="")]
    close = difflib.get_close_matches(re.sub(r"\[\d+\]", "[]", path), known, 1)
    return ConfigError(f"{source}: {path}: no such setting", close[0] if close else f"remove {path}")


def _shown(value: Any, path: str) -> str:
    if is_secret(path):
        return REDACTED
    text = redact_text(repr(value))
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"


def _value_at(tree: Any, path: str) -> Any:
    for word in re.findall(r"[^.\[\]]+", path):
        if isinstance(tree, Mapping) and word in tree:
            tree = tree[word]
        elif isinstance(tree, list) and word.isdigit():
            tree = tree[int(word)]
    return tree
