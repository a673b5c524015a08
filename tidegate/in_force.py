"""The configuration that is in force, shown by `config check` of each command: without the passwords in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tidegate.console import print_json, show
from tidegate.logs import redact
from tidegate.settings import settings

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
    """`setting` (its dotted path), `value` as TOML writes it, and `what` it is, in the order of declaration. A list of
    tables is one."""
    held = tree(config)
    found: list[Mapping[str, Any]] = []
    for setting in settings(type(config), env_prefix=""):
        if "[]" in setting.path:
            continue
        value: Any = held
        for word in setting.path.split("."):
            value = value[word]
        found.append(
            {"setting": setting.path, "value": msgspec.json.encode(value).decode(), "what": setting.description}
        )
    return found
