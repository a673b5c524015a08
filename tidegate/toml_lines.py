"""Where in a TOML file a setting stands, for error messages: tomllib does not say."""

from __future__ import annotations

import re

_HEADER = re.compile(r"^\s*(?P<open>\[\[?)\s*(?P<name>[^\[\]#]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"^\s*(?P<name>[\w.\s\"'-]+?)\s*=")
_LAST_WORD = re.compile(r"(\.?[^.\[\]]+|\[\d+\])$")


def line_of(text: str, path: str) -> int | None:
    """The line, from 1, that sets `path` (`mqtt[0].port`), or else the table or list that it lies within; None where
    there is neither. `text` is valid TOML."""
    lines = _lines(text)
    while path:
        if path in lines:
            return lines[path]
        path = _LAST_WORD.sub("", path)
    return None


def _lines(text: str) -> dict[str, int]:
    """First line of each table, entry of a list of tables, and key. Values of more than one line are not understood,
    so that what looks like a key within one may be taken for one."""
    found: dict[str, int] = {}
    entries: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _plain(header["name"])
            if header["open"] == "[[":
                entries[table] = entries.get(table, -1) + 1
            for name, entry in entries.items():
                if table == name or table.startswith(f"{name}."):
                    table = f"{name}[{entry}]{table.removeprefix(name)}"
                    break
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault(f"{table}.{_plain(key['name'])}".lstrip("."), number)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s\"']", "", name)
