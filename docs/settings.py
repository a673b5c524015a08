"""Writes SETTINGS.md from the configuration's own types: `make docs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cloud.config
import edge.config
from tidegate.config import Setting, settings

PAGE = Path(__file__).with_name("SETTINGS.md")

HEAD = """# Settings

Made from `edge/config.py` and `cloud/config.py` by `make docs`.

A setting comes from its default, else from the TOML file that `--config` names, else from the environment, which wins.
In the environment lists and tables are written as JSON: `TIDEGATE_EDGE_MQTT='[{"name": "mqtt", "network": "serial"}]'`.
A mistake ends the command with the file or variable, the setting and the limit. An unknown setting is a mistake.
"""

COMMANDS = (
    ("Gateway: tidegate-edge", edge.config.EdgeConfig, edge.config.ENV_PREFIX),
    ("Cloud: tidegate-cloud", cloud.config.CloudConfig, cloud.config.ENV_PREFIX),
)


def page() -> str:
    """The whole of docs/SETTINGS.md."""
    parts = [HEAD]
    for title, kind, env_prefix in COMMANDS:
        parts.append(f"\n## {title}\n")
        tables: dict[str, list[Setting]] = {}
        for setting in settings(kind, env_prefix=env_prefix):
            tables.setdefault(setting.path.rpartition(".")[0], []).append(setting)
        for table, members in tables.items():
            parts.extend(_table(table, members))
    return "".join(parts)


def _table(name: str, members: list[Setting]) -> Iterator[str]:
    if name:
        header = f"[[{name.replace('[]', '')}]]" if name.endswith("[]") else f"[{name}]"
        yield f"\n### `{header}`\n"
    if members[0].table:
        yield f"\n{members[0].table}\n"
    yield "\n| setting | default | what it is | values | environment |\n| --- | --- | --- | --- | --- |\n"
    for setting in members:
        values = ", ".join(filter(None, (setting.type, setting.limits)))
        default = setting.default if setting.default in ("required", "not set") else f"`{setting.default}`"
        variable = f"`{setting.environment}`" if setting.environment else ""
        yield _row((f"`{setting.path.rpartition('.')[2]}`", default, setting.description, values, variable))


def _row(cells: Iterable[str]) -> str:
    return "".join(f"| {cell.replace('|', chr(92) + '|')} " for cell in cells) + "|\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE.name}: written")
