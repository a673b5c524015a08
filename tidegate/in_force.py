"""The configuration that is in force, shown by `config check` of each command: without the passwords in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from tidegate.console import print_json, show
from tidegate.logs import redact
from tidegate.settings import Setting, settings

COLUMNS: Final = {"setting": "setting", "value": "value", "what": "what it is"}


def show_in_force(config: msgspec.Struct, *, as_json: bool) -> None:
    """On standard output: a table with a line for each setting, or the tree as JSON."""
    if as_json:
        print_json(tree(config))
    else:
        show(rows(config), columns=COLUMNS, as_json=False)


def tree(config: msgspec.Struct) -> dict[str, Any]:
    """As TOML has it, with paths as text; passwords, also those in URLs, are left out."""
    return dict(redact(None, "", msgspec.to_builtins(config, enc_hook=str)))


def rows(config: msgspec.Struct) -> list[Mapping[str, Any]]:
    """`setting` (its dotted path), `value` as TOML writes it, and `what` it is, in the order of declaration. In lists
    of tables, `mqtt[0].port`, only what is not at its default."""
    known = {setting.path: setting for setting in settings(type(config), env_prefix="")}
    return list(_rows(tree(config), "", "", known))


def _rows(held: Any, place: str, path: str, known: Mapping[str, Setting]) -> Iterator[Mapping[str, Any]]:
    """`place`: where it is held; `path`: the same without the numbers in it, as settings have it."""
    if isinstance(held, dict) and path not in known:
        for name, value in held.items():
            yield from _rows(value, f"{place}.{name}".lstrip("."), f"{path}.{name}".lstrip("."), known)
    elif isinstance(held, list) and held and isinstance(held[0], dict):
        for number, value in enumerate(held):
            yield from _rows(value, f"{place}[{number}]", f"{path}[]", known)
    elif path in known:
        text = msgspec.json.encode(held).decode()
        if "[]" not in path or (held is not None and text != known[path].default):
            yield {"setting": place, "value": text, "what": known[path].description}
