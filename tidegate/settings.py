"""The settings of a configuration as its user sees them: what docs/SETTINGS.md is made from, and what a misspelt name
is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect


class Setting(msgspec.Struct, frozen=True):
    path: str
    """Dotted, as in TOML; `[]` behind the name of a list or table whose entries have settings of their own."""
    type: str
    default: str
    """As written in TOML; "required" where there is none, "not set" where it may be left out."""
    limits: str
    description: str
    environment: str
    """The variable that sets it; empty for those within the entries of a list."""
    table: str
    """What the table that it stands in is about."""


def settings(kind: type[msgspec.Struct], *, env_prefix: str) -> Iterator[Setting]:
    """Every setting of `kind` in the order of its declaration."""
    yield from _settings(struct_of(kind), msgspec.NODEFAULT, "", env_prefix.rstrip("_") + "_")


def struct_of(kind: type[msgspec.Struct]) -> inspect.StructType:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)  # the argument's type says so
    return found


def alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """The members of a union, or the type alone; without the wrapping that holds descriptions."""
    kind = _bare(kind)
    return tuple(_bare(part) for part in kind.types) if isinstance(kind, inspect.UnionType) else (kind,)


def table_of(kind: inspect.Type) -> inspect.StructType | None:
    """The struct that a table in TOML becomes; None where the setting is no such table."""
    return next((part for part in alternatives(kind) if isinstance(part, inspect.StructType)), None)


def _bare(kind: inspect.Type) -> inspect.Type:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind


def _settings(struct: inspect.StructType, instance: Any, above: str, prefix: str) -> Iterator[Setting]:
    """`instance` is what stands where the whole table is left out, if it may be."""
    for field in struct.fields:
        path = above + field.encode_name
        name = f"{prefix}{field.encode_name}".upper() if prefix else ""
        default = _default(field) if instance in (None, msgspec.NODEFAULT) else getattr(instance, field.name)
        inner = table_of(field.type)
        if inner is not None:
            yield from _settings(inner, default, f"{path}.", f"{name}__" if name else "")
            continue
        yield Setting(
            path=path,
            type=_type_text(field.type),
            default=_default_text(default),
            limits=_limits(field.type),
            description=_description(field.type),
            environment=name,
            table=" ".join((struct.cls.__doc__ or "").split()),
        )
        for item in _item_structs(field.type):
            yield from _settings(item, msgspec.NODEFAULT, f"{path}[].", "")


def _item_structs(kind: inspect.Type) -> Iterator[inspect.StructType]:
    for part in alternatives(kind):
        item = part.value_type if isinstance(part, inspect.DictType) else getattr(part, "item_type", None)
        for each in alternatives(item) if item is not None else ():
            if isinstance(each, inspect.StructType):
                yield each


def _description(kind: inspect.Type) -> str:
    while isinstance(kind, inspect.Metadata):
        if kind.extra_json_schema and "description" in kind.extra_json_schema:
            return str(kind.extra_json_schema["description"])
        kind = kind.type
    return ""


_TYPE_WORDS: Final[Mapping[type, str]] = {
    inspect.StrType: "text",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "true or false",
    inspect.BytesType: "base64",
    inspect.CustomType: "path",
    inspect.StructType: "table",
    inspect.DictType: "table",
    inspect.AnyType: "any",
}


def _type_text(kind: inspect.Type) -> str:
    words = []
    for part in alternatives(kind):
        if isinstance(part, inspect.NoneType):
            continue
        if isinstance(part, inspect.LiteralType):
            words.append(" or ".join(_toml(value) for value in part.values))
        elif isinstance(part, inspect.EnumType):
            words.append(" or ".join(_toml(member.value) for member in part.cls))
        elif (item := getattr(part, "item_type", None)) is not None:
            words.append(f"list of {_type_text(item)}")
        else:
            words.append(_TYPE_WORDS[type(part)])
    return " or ".join(words)


def _default(field: inspect.Field) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _default_text(default: Any) -> str:
    if default is msgspec.NODEFAULT:
        return "required"
    return "not set" if default is None else _toml(default)


_BOUNDS: Final = (("ge", ">= {}"), ("gt", "> {}"), ("le", "<= {}"), ("lt", "< {}"), ("pattern", "matches {}"))
_LENGTHS: Final = (("min_length", "at least"), ("max_length", "at most"))


def _limits(kind: inspect.Type) -> str:
    words = []
    for part in alternatives(kind):
        words += [form.format(limit) for name, form in _BOUNDS if (limit := getattr(part, name, None)) is not None]
        noun = "character" if isinstance(part, inspect.StrType) else "item"
        for name, form in _LENGTHS:
            limit = getattr(part, name, None)
            if limit is not None:
                words.append(f"{form} {counted(limit, noun)}")
    return ", ".join(words)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _toml(value: Any) -> str:
    """The value as TOML writes it; JSON's strings, numbers, booleans and lists are TOML's too."""
    return msgspec.json.encode(value, enc_hook=str).decode()
