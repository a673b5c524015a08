"""`tidegate-edge test`: whether the listeners hear their devices, and what they make of what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from edge.cli.options import AsJson, ConfigFile, DataDir, load_config

if TYPE_CHECKING:
    from edge.config import EdgeConfig
    from edge.listeners.roster import Section

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min)?")

NOT_KEPT: Final = """\
nothing is kept, nothing is sent on: devices are answered as by a gateway whose log takes nothing. Over MQTT they get no
PUBACK and are cut off, over HTTP a 503, over CoAP a 5.03; what asks for no answer (QoS 0, UDP, serial lines) is lost"""
KEPT: Final = "the gateway runs: what comes is recorded and sent as always, and is shown here as it comes"
NO_REGISTRY: Final = "no registry came from the cloud yet: devices with credentials are refused, and none is known"


def trial(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    once: Annotated[bool, typer.Option("--once", help="Until each listener has heard one message.")] = False,
    listener: Annotated[str, typer.Option("--listener", help="Only this one.")] = "",
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait: 60s, 5min.")] = "60s",
    as_json: AsJson = False,
) -> None:
    """Start the configured listeners without log and link, and show what comes, decoded, or why it cannot be.

    Beside a gateway that runs, its own messages are watched. Exit code 1 where a listener heard nothing that
    decodes."""
    from edge.data_folder import running
    from tidegate.console import UserError

    config = load_config(config_file, data_dir)
    sections = [section for section in config.listeners if listener in ("", section[1].name)]
    if not sections:
        names = ", ".join(section.name for _, section in config.listeners) or "none"
        raise UserError(
            f"no listener is named {listener!r}" if listener else "no listener is configured", f"there are: {names}"
        )
    seen = Seen([section.name for _, section in sections], once=once, as_json=as_json)
    wait_s = seconds(timeout)
    print(f"waiting for {timeout}, or until Ctrl-C", file=sys.stderr)
    began_s = time.monotonic()
    try:
        if running(config.data_dir) is not None:
            _watch(config_file, data_dir, seen, wait_s)
        else:
            asyncio.run(_try(config, sections, seen, wait_s))
    except KeyboardInterrupt:
        _sum_up(seen, f"{time.monotonic() - began_s:.0f}s")
        raise
    _sum_up(seen, timeout)
    if not seen.is_good:
        raise typer.Exit(1)


class Seen:
    """What came, by listener, and whether there is more to wait for."""

    def __init__(self, names: Sequence[str], *, once: bool, as_json: bool) -> None:
        self._best = dict.fromkeys(names, "")
        self._once = once
        self._as_json = as_json

    def take(self, event: dict[str, Any]) -> bool:
        """An event of the tail. Whether everything came that was waited for. A packet that is refused is no message:
        its device may try again."""
        from edge.cli.tail import line

        name, kind = event["listener"], event["kind"]
        if name not in self._best or (self._once and self._best[name] in ("message", "rejected")):
            return self.is_done
        print(msgspec.json.encode(event).decode() if self._as_json else f"{name}: {line(event)}", flush=True)
        if self._best[name] != "message":
            self._best[name] = kind
        return self.is_done

    @property
    def is_done(self) -> bool:
        return self._once and all(kind in ("message", "rejected") for kind in self._best.values())

    @property
    def is_good(self) -> bool:
        return all(kind == "message" for kind in self._best.values())

    def summary(self, waited: str) -> Iterator[str]:
        words = {
            "message": "heard, and decoded",
            "rejected": "heard, but what came does not decode: see the codec of its network, or the device",
            "refused": "devices came, and were refused: see above",
            "": f"heard nobody within {waited}",
        }
        for name, kind in self._best.items():
            yield f"{name}: {words[kind]}"


def _sum_up(seen: Seen, waited: str) -> None:
    for line in seen.summary(waited):
        print(line, file=sys.stderr)


def seconds(text: str) -> float:
    """Raises UserError."""
    from tidegate.console import UserError

    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UserError(f"--timeout {text!r} is no length of time", "write 60s or 5min")
    return float(found[1]) * (60 if found[2] == "min" else 1)


def _watch(config_file: Path | None, data_dir: Path | None, seen: Seen, wait_s: float) -> None:
    """The tail of the gateway that runs."""
    from edge.cli.gateway import RunningGateway

    gateway = RunningGateway(config_file, data_dir)
    print(KEPT, file=sys.stderr)
    for name, data in gateway.events("/tail", within_s=wait_s):
        if name != "gap" and seen.take(msgspec.json.decode(data)):
            return


async def _try(config: EdgeConfig, sections: Sequence[Section], seen: Seen, wait_s: float) -> None:
    from edge.identity import load_enrolment
    from edge.trial import trial as trial_of

    print(NOT_KEPT, file=sys.stderr)
    async with trial_of(config.data_dir, load_enrolment(config.data_dir), sections) as tried:
        if not tried.registry.revision:
            print(NO_REGISTRY, file=sys.stderr)
        for one in await tried.start():
            state = f"trouble: {one.trouble}" if one.trouble else "waiting"
            print(
                f"{one.name}: {' '.join(filter(None, (one.kind, one.place)))}, network {one.network}, {state}",
                file=sys.stderr,
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while True:
                    events, _ = await tried.heard.next()
                    for event in events:
                        if seen.take(msgspec.json.decode(event)):
                            return
