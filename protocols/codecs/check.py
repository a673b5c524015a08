"""Whether a spec can work. Whoever takes one from a person asks here; what is in the registry is taken as it is."""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.codecs.catalog import CODECS
from protocols.codecs.spec import CodecSpec, Layout, LayoutBits, LayoutField, SpecError
from protocols.errors import UNREADABLE
from protocols.limits import NAME_BYTES_MAX

PATH_CHARACTERS_MAX: Final = 200
KEY_PATHS_MAX: Final = 8
"""Parts of a message key: boot and sequence are two."""
ATTRIBUTES_MAX: Final = 512
"""Names in one table of a spec: every gateway of the project holds it in memory."""
SPEC_BYTES_MAX: Final = 64 * 1024
"""Of the whole spec, as JSON."""

_INNER: Final[dict[tuple[type[msgspec.Struct], str], type[msgspec.Struct]]] = {
    (CodecSpec, "layout"): Layout,
    (Layout, "fields"): LayoutField,
    (LayoutField, "fields"): LayoutField,
    (LayoutField, "bits"): LayoutBits,
}
_TABLES: Final = ("attributes", "units", "types")
_PATHS: Final = ("alias_path", "time_path", "messages_path")


def check_spec(spec: CodecSpec) -> None:
    """Raises SpecError, which names the field."""
    try:
        encoded = msgspec.json.encode(spec)
    except UnicodeEncodeError:
        raise SpecError("codec", "a text holds half of a surrogate pair") from None
    if b"\\u0000" in encoded:
        raise SpecError("codec", "a text holds the character U+0000")
    if len(encoded) > SPEC_BYTES_MAX:
        raise SpecError("layout", f"the spec is larger than {SPEC_BYTES_MAX:,} bytes")
    make = CODECS.get(spec.codec)
    if make is None:
        raise SpecError("codec", f"there is no codec {spec.codec!r}; known are: {', '.join(sorted(CODECS))}")
    for name in _PATHS:
        _check_path(name, getattr(spec, name))
    if len(spec.key_paths) > KEY_PATHS_MAX:
        raise SpecError("key_paths", f"{len(spec.key_paths)} parts; the limit is {KEY_PATHS_MAX}")
    for place, path in enumerate(spec.key_paths):
        _check_path(f"key_paths[{place}]", path)
        if not path:
            raise SpecError(f"key_paths[{place}]", "empty")
    for name in _TABLES:
        table: dict[str, str] = getattr(spec, name)
        if len(table) > ATTRIBUTES_MAX:
            raise SpecError(name, f"{len(table)} attributes; the limit is {ATTRIBUTES_MAX}")
        for key, value in table.items():
            _check_path(f"{name}.{key[:40]}", value)
            if not key or len(key.encode()) > NAME_BYTES_MAX:
                raise SpecError(name, f"{key[:40]!r} is no attribute's name: 1 to {NAME_BYTES_MAX} bytes are expected")
            if not value:
                raise SpecError(f"{name}.{key}", "empty")
    if spec.codec == "layout" and spec.messages_path:
        raise SpecError("messages_path", "a layout's messages are a group with `messages`")
    make(spec)


def read_spec(text: bytes) -> CodecSpec:
    """From JSON, as in a network's `codec`; checked. Raises SpecError: also for a setting that does not exist."""
    try:
        given = msgspec.json.decode(text)
        spec = msgspec.json.decode(text, type=CodecSpec)
    except RecursionError:
        raise SpecError("spec", "nested too deeply") from None
    except UNREADABLE as error:
        raise SpecError("spec", str(error)) from None
    _check_known("", given, CodecSpec)
    check_spec(spec)
    return spec


def _check_known(where: str, given: object, kind: type[msgspec.Struct]) -> None:
    """A setting that is misspelled would be passed over in silence."""
    if type(given) is not dict:
        return
    known = {field.name for field in msgspec.structs.fields(kind)}
    for name, value in given.items():
        if name not in known:
            raise SpecError(f"{where}{name}", f"no such setting; there are {', '.join(sorted(known))}")
        inner = _INNER.get((kind, name))
        if inner is not None:
            values = value if type(value) is list else [value]
            for place, one in enumerate(values):
                _check_known(f"{where}{name}[{place}]." if type(value) is list else f"{where}{name}.", one, inner)


def _check_path(name: str, path: str) -> None:
    if len(path) > PATH_CHARACTERS_MAX:
        raise SpecError(name, f"{len(path)} characters; the limit is {PATH_CHARACTERS_MAX}")
