"""`tidegate-edge decode`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edge.app import REPLICA_FILE
from edge.cli import app
from edge.replica import Replica
from protocols.codecs import CodecSpec
from sync.registry import Network, RegistryChange
from tidegate.console import UserError

SPEC = {
    "codec": "layout",
    "layout": {
        "fields": [
            {"name": "age", "type": "u8", "time": "s", "epoch": "ago"},
            {"name": "t", "type": "i16", "scale": 0.1, "unit": "Cel"},
        ]
    },
}


def run(*words: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, ["decode", *map(str, words)], input=stdin)


def refused(*words: str | Path) -> UserError:
    done = run(*words)
    assert isinstance(done.exception, UserError)
    return done.exception


def test_messages_with_what_the_codec_found_in_them() -> None:
    payload = '[{"id":"p-7","boot":3,"seq":9,"time":1770000000,"t":21.5},{"id":"p-8","t":22}]'
    done = run("--codec", "json", payload)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "message 0  time 2026-02-02T02:40:00.000Z",
        '  {"id":"p-7","boot":3,"seq":9,"t":21.5}',
        "message 1",
        '  {"id":"p-8","t":22}',
    ]


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_a_spec_from_a_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"pump.{suffix}"
    toml = """codec = "layout"
[[layout.fields]]
name = "age"
time = "s"
epoch = "ago"
[[layout.fields]]
name = "t"
type = "i16"
scale = 0.1
unit = "Cel"
"""
    file.write_text(json.dumps(SPEC) if suffix == "json" else toml)
    done = run("--spec", file, "hex: 3c 00d7")
    assert done.output.splitlines() == [
        "message 0  time -60 s from when it is received",
        '  {"t":21.5}',
        "units  t Cel",
    ]


def test_the_byte_that_is_wrong_is_marked(tmp_path: Path) -> None:
    file = tmp_path / "pump.json"
    file.write_text(json.dumps(SPEC))
    done = run("--spec", file, "hex:3c00d7ff")
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "undecodable: the layout ends here; bytes left: 1 (byte 3)",
        "  bytes 0 on  3c 00 d7 ff  <...",
        "                       ^^ byte 3",
    ]
    done = run("--spec", file, "hex:3c00", "--json")
    assert done.exit_code == 1
    found = json.loads(done.output)["error"]
    assert (found["offset"], found["path"], found["around"]["hex"]) == (1, "t", "3c 00")


def test_payloads_come_from_files_and_from_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "payload"
    file.write_bytes(b"a=1")
    for words, stdin in (((f"@{file}",), b""), (("-",), b"a=1"), (("base64:YT0x",), b"")):
        assert run("--codec", "key-value", *words, stdin=stdin).output == 'message 0\n  {"a":1}\n'


async def test_a_networks_codec_as_the_gateway_knows_it(tmp_path: Path) -> None:
    replica = Replica(tmp_path / REPLICA_FILE, "demo")
    change = RegistryChange("demo", 0, 1, networks=(Network("boats", spec=CodecSpec("csv", columns=("a", "b"))),))
    await replica.apply(change)
    replica.close()
    assert run("--network", "boats", "--data", tmp_path, "1,2").output == 'message 0\n  {"a":1,"b":2}\n'
    assert (
        run("--network", "boats", "--codec", "json", "--data", tmp_path, '{"c":3}').output == 'message 0\n  {"c":3}\n'
    )
    assert "boats" in refused("--network", "planes", "--data", tmp_path, "1,2").remedy


def test_what_cannot_be_asked_says_what_to_do(tmp_path: Path) -> None:
    assert "known are: json" in refused("--codec", "morse", "x").remedy
    assert "--network" in refused("x").remedy
    assert "start the gateway" in refused("--network", "n", "--data", tmp_path, "x").remedy
    assert "hex:" in refused("--codec", "json", "hex:0").message
    assert "No such file" in refused("--codec", "json", f"@{tmp_path}/none").message
    file = tmp_path / "bad.json"
    file.write_text('{"codec": "layout", "layout": {"fields": [{"type": "u7"}]}}')
    assert "layout.fields[0].type" in refused("--spec", file, "x").message
    assert "larger than" in refused("--codec", "json", "x" * 300_000).message
