"""The commands of docs/CODECS.md give what stands below them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "CODECS.md").read_text()
BLOCK = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
COMMAND = ".venv/bin/tidegate-edge "
SHOWN = [
    block.splitlines()
    for block in (re.sub(r"^    ", "", found[0], flags=re.MULTILINE) for found in BLOCK.finditer(PAGE))
]


@pytest.mark.parametrize(
    "lines", [lines for lines in SHOWN if lines[0].startswith(COMMAND)], ids=lambda lines: lines[0]
)
def test_a_command_of_the_page(lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (layout,) = (lines for lines in SHOWN if lines[0] == "{")
    Path("pump.json").write_text("\n".join(layout))
    done = CliRunner().invoke(app, shlex.split(lines[0].removeprefix(COMMAND)))
    assert done.output.splitlines() == lines[1:]


def test_the_page_has_commands() -> None:
    assert sum(lines[0].startswith(COMMAND) for lines in SHOWN) == 5
