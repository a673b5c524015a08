"""`tidegate-edge decode`: what a codec makes of a payload. It needs no gateway that runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir, load_config

if TYPE_CHECKING:
    from protocols.codecs import CodecSpec
    from protocols.codecs.trial import Around, Trial, TriedMessage

UNDECODABLE: Final = 1
"""Exit code."""


def decode(
    payload: Annotated[
        str, typer.Argument(help="Text, hex:01ff, base64:Af8=, @FILE, or - for standard input.", metavar="PAYLOAD")
    ],
    codec: Annotated[
        str, typer.Option("--codec", help="Name of the codec; beside --spec or --network it is the listener's hint.")
    ] = "",
    spec: Annotated[
        Path | None,
        typer.Option("--spec", help="File with a network's codec, JSON or TOML, as the API takes it.", metavar="FILE"),
    ] = None,
    network: Annotated[
        str, typer.Option("--network", help="Network whose codec it is, as this gateway knows it.", metavar="NAME")
    ] = "",
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the messages of a payload, or the byte and the reason why there are none. Nothing is recorded."""
    from protocols.codecs import CodecSpec, decoder_of
    from protocols.codecs.trial import try_payload
    from tidegate.console import UserError, print_json

    _check_codec(codec)
    if spec is not None and network:
        raise UserError("--spec and --network both say the codec", "give one of them")
    if spec is not None:
        own = read_spec_file(spec)
    elif network:
        own = network_spec(load_config(config_file, data_dir).data_dir, network)
    elif codec:
        own = CodecSpec(codec)
    else:
        raise UserError("no codec", "give --codec NAME, --spec FILE or --network NAME")
    data = read_payload(payload)
    trial = try_payload(decoder_of(own, codec), data)
    if as_json:
        print_json(trial)
    else:
        print("\n".join(sheet(trial, len(data))))
    if trial.error is not None:
        raise typer.Exit(UNDECODABLE)


def read_payload(text: str) -> bytes:
    """Raises UserError."""
    from protocols.codecs.trial import payload_of
    from protocols.limits import PAYLOAD_BYTES_MAX
    from tidegate.console import UserError

    try:
        if text == "-":
            data = sys.stdin.buffer.read(PAYLOAD_BYTES_MAX + 1)
        elif text.startswith("@"):
            with Path(text[1:]).open("rb") as file:
                data = file.read(PAYLOAD_BYTES_MAX + 1)
        else:
            data = payload_of(text)
    except OSError as error:
        raise UserError(f"{text[1:]}: {error.strerror}", "give the path of a file that this user may read") from None
    except ValueError as error:
        raise UserError(str(error)) from None
    if len(data) > PAYLOAD_BYTES_MAX:
        raise UserError(f"the payload is larger than {PAYLOAD_BYTES_MAX:,} bytes, which no listener takes")
    return data


def read_spec_file(path: Path) -> CodecSpec:
    """A network's codec from JSON or TOML. Raises UserError."""
    import tomllib

    import msgspec

    from protocols.codecs.check import read_spec
    from protocols.codecs.spec import SpecError
    from tidegate.console import UserError

    try:
        text = path.read_bytes()
        if path.suffix == ".toml":
            text = msgspec.json.encode(tomllib.loads(text.decode()))
        return read_spec(text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "give the path of a file that this user may read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}") from None
    except SpecError as error:
        raise UserError(f"{path}: {error}", "settings are listed in docs/CODECS.md") from None


def network_spec(data_dir: Path, network: str) -> CodecSpec:
    """The network's codec by the gateway's replica of the registry. Raises UserError."""
    from edge.app import REPLICA_FILE
    from edge.replica import networks_of
    from tidegate.console import UserError

    known = networks_of(data_dir / REPLICA_FILE)
    if known is None:
        remedy = "start the gateway once, enrolled; or give the codec by --spec FILE"
        raise UserError(f"there is no registry in {data_dir}", remedy)
    if network not in known:
        named = f"known are: {', '.join(sorted(known))}" if known else "the cloud has told of none"
        raise UserError(f"no network is called {network!r}", named)
    return known[network].spec


def _check_codec(name: str) -> None:
    from protocols.codecs import CODECS
    from tidegate.console import UserError

    if name and name not in CODECS:
        raise UserError(f"no codec is called {name!r}", f"known are: {', '.join(CODECS)}")


def sheet(trial: Trial, size: int) -> list[str]:
    """The result for people, as lines."""
    if trial.error is not None:
        lines = [f"{trial.error.code}: {trial.error.detail}"]
        return lines if trial.error.around is None else [*lines, *_marked(trial.error.around, trial.error.offset, size)]
    lines = []
    for message in trial.messages:
        told = ", ".join(_told(message))
        lines.append(f"message {message.index}{'  ' if told else ''}{told}")
        lines.append(f"  {bytes(message.data).decode()}")
    if trial.units:
        lines.append("units  " + ", ".join(f"{name} {unit}" for name, unit in trial.units.items()))
    return lines


def _told(message: TriedMessage) -> list[str]:
    told = []
    if message.alias is not None:
        told.append(f"device {message.alias}")
    if message.key is not None:
        told.append(f"key {'/'.join(map(str, message.key))}")
    if message.time is not None:
        told.append(f"time {_moment(message.time)}")
    if message.received_plus_ms is not None:
        told.append(f"time {message.received_plus_ms / 1000:+g} s from when it is received")
    return told


def _moment(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def _marked(around: Around, offset: int | None, size: int) -> list[str]:
    """The bytes around the one that is wrong, with a mark below it."""
    place = (offset or 0) - around.start
    what = f"byte {offset}" if offset is not None and offset < size else "the end"
    head = f"  bytes {around.start} on  "
    return [f"{head}{around.hex}  {around.text}", f"{' ' * (len(head) + 3 * place)}^^ {what}"]
