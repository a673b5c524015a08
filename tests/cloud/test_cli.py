"""`tidegate-cloud`, as far as it needs no engines (tests/end_to_end has the rest)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cloud.cli.options import same_options

COMMAND = Path(sys.executable).with_name("tidegate-cloud")
PATIENCE_S = 20.0


def command(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, **environment},
    )


def test_it_says_its_version() -> None:
    assert command("--version").stdout == f"tidegate-cloud {metadata.version('tidegate')}\n"


def test_config_check_shows_what_is_in_force(tmp_path: Path) -> None:
    file = tmp_path / "cloud.toml"
    file.write_text("[http]\nport = 9000\n")
    done = command("config", "check", "--config", file, TIDEGATE_CLOUD_ENGINES__REACH_WITHIN_S="1.5")
    assert done.returncode == 0
    shown = [line.split()[:2] for line in done.stdout.splitlines()]
    assert ["http.port", "9000"] in shown
    assert ["engines.reach_within_s", "1.5"] in shown


def test_config_check_shows_no_password() -> None:
    url = "postgresql://tidegate:hush@db:5432/tidegate"
    for words in (("config", "check"), ("config", "check", "--json")):
        done = command(*words, TIDEGATE_CLOUD_DATABASE__URL=url)
        assert "postgresql://tidegate:[redacted]@db:5432/tidegate" in done.stdout
        assert "hush" not in done.stdout + done.stderr
    assert json.loads(done.stdout)["http"]["port"] == 8080


@pytest.mark.parametrize("words", [("run",), ("config", "check"), ("user", "reset", "admin")])
def test_every_command_says_what_is_wrong_in_the_file(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "cloud.toml"
    file.write_text("[http]\nprot = 1\n")
    done = command(*words, "--config", file)
    assert done.returncode == 1
    assert done.stderr == f"error: {file}, line 2: http.prot: no such setting\n  try: http.port\n"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = command("run", "--config", tmp_path / "none.toml")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path / 'none.toml'}: No such file or directory\n  try: give the path of a readable TOML file\n"
    )


def test_the_same_options_again() -> None:
    assert same_options(None, None) == ""
    assert same_options(Path("a b.toml"), Path("data")) == " --config 'a b.toml' --data data"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "network_id: is missing"),
        (("--network", "n"), "alias: is missing"),
        (("--network", "n", "--alias", "a"), "the file has no column 'time'"),
        (("--network", "n", "--alias", "a", "--time-column", "at", "--type", "t"), "--type t is no pair"),
        (("--network", "n", "--alias", "a", "--time-column", "at", "--format", "xml"), "Invalid enum value 'xml'"),
    ],
)
def test_import_says_what_is_wrong_before_it_looks_for_a_cloud(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    file = tmp_path / "past.csv"
    file.write_text("at;t\n1772000000;1\n")
    done = command("import", file, *options)
    assert done.returncode == 1
    assert said in done.stderr


def test_import_looks_at_a_file_without_a_cloud(tmp_path: Path) -> None:
    file = tmp_path / "past.csv"
    file.write_text("at;t\n1772000000;1\n")
    looked = command("import", file, "--network", "n", "--alias", "a", "--time-column", "at", "--dry-run")
    assert (looked.returncode, looked.stdout) == (0, "the first lines can be read\n")
