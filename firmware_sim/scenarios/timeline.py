"""A scenario: read, checked, and laid out as moments. Nothing here touches a network.

The page docs/SCENARIOS.md has the format; the structs in events.py have each kind of event.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec

from firmware_sim.devices.roster import SharedProtocol
from firmware_sim.scenarios.events import (
    DURATION_MAX_S,
    KINDS,
    AnyEvent,
    BlackHole,
    BrownOut,
    Burst,
    Cut,
    Delay,
    Duplicates,
    Flap,
    Kill,
    Late,
    LinkEvent,
    Loss,
    Malformed,
    Pause,
    Restart,
    Span,
    Stall,
    Throttle,
    Unplug,
    WrongClock,
    decode,
)
from firmware_sim.signals import PROFILES
from tidegate import config
from tidegate.config import ConfigError
from tidegate.console import UserError
from tidegate.toml_lines import line_of

HERE: Final = Path(__file__).parent
EVENTS_MAX: Final = 200
"""More than anybody reads."""
DEVICES_MAX: Final = 1000
"""Simulated in the process that also watches; `fleet` is there for more."""
DURATION_MIN_S: Final = 1.0
EACH_MIN_S: Final = 0.01
EACH_MAX_S: Final = 3600.0
"""Of loss and flapping, as the link proxy takes them."""
SAME_S: Final = 1e-9
_WHAT: Final = re.compile(r"event\[\d+\]\.what: ")


class FleetTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The devices of a scenario."""

    devices: Annotated[int, msgspec.Meta(ge=1, le=DEVICES_MAX)] = 12
    rate_each: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)] = 1.0
    """Messages a second of each."""
    buffer: Annotated[int, msgspec.Meta(ge=30, le=100_000)] = 1000
    """Messages that each can keep; then its oldest goes."""
    profile: str = "pump"
    protocols: Annotated[tuple[SharedProtocol, ...], msgspec.Meta(min_length=1, max_length=16)] = ("mqtt",)
    """What devices that are made on the demo speak, in turn: one that is named twice is spoken twice as often."""

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"no profile {self.profile!r}; one of {', '.join(PROFILES)}")


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of a file."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
    """One line: what it plays."""
    duration: Span
    """How long devices measure."""
    event: Annotated[list[AnyEvent], msgspec.Meta(max_length=EVENTS_MAX)] = []
    fleet: FleetTable = FleetTable()
    about: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    """More, for those who ask."""


class Moment(msgspec.Struct, frozen=True):
    """Something begins; `until_s` it ends, at once where both are the same. Seconds from the start."""

    at_s: float
    until_s: float
    event: AnyEvent
    places: tuple[int, ...] = ()
    """Of the devices that it befalls."""

    @property
    def text(self) -> str:
        """In a few words: what happens, to how many."""
        return _words(self.event, len(self.places))


def find(name: str) -> Path:
    """The file of a named scenario, or the file of this path. Raises UserError."""
    named = {path.stem: path for path in shipped()}
    if name in named:
        return named[name]
    path = Path(name)
    if not path.is_file():
        raise UserError(f"no scenario {name!r}", f"a TOML file, or one of {', '.join(named)}")
    return path


def shipped() -> list[Path]:
    """The named ones."""
    return sorted(HERE.glob("*.toml"))


def read(file: Path) -> Scenario:
    """Raises ConfigError, which names file, line, field and limit."""
    try:
        scenario = config.load(Scenario, file=file, env_prefix="", environ={}, decode=decode)
    except ConfigError as error:
        if _WHAT.search(error.message):
            raise ConfigError(error.message, f"one of {', '.join(KINDS)}") from None
        raise
    _check(scenario, file)
    return scenario


def moments(scenario: Scenario, *, devices: int, seed: int) -> list[Moment]:
    """All that happens, in order of time; the same for the same seed."""
    laid_out: list[Moment] = []
    for place, event in enumerate(scenario.event):
        chance = random.Random(f"{seed}/{place}")
        for number in range(event.times):
            at_s = event.at + number * event.every + chance.uniform(0.0, event.jitter)
            befallen = _befallen(event, devices, chance)
            laid_out.append(Moment(at_s, at_s + lasting_s(event), event, befallen))
    return sorted(laid_out, key=lambda moment: moment.at_s)


def lasting_s(event: AnyEvent) -> float:
    return 0.0 if isinstance(event, Duplicates | Malformed | Kill) else event.lasts


def _befallen(event: AnyEvent, devices: int, chance: random.Random) -> tuple[int, ...]:
    if isinstance(event, Burst):
        return tuple(range(devices))
    if isinstance(event, BrownOut | Restart | Late | Unplug | Duplicates | Malformed | WrongClock):
        return tuple(sorted(chance.sample(range(devices), math.ceil(event.share * devices - SAME_S))))
    return ()


def _check(scenario: Scenario, file: Path) -> None:
    if not DURATION_MIN_S <= scenario.duration <= DURATION_MAX_S:
        raise _wrong(file, "duration", f"is not within {DURATION_MIN_S:g} s and {DURATION_MAX_S / 3600:g} hours")
    for place, event in enumerate(scenario.event):
        path = f"event[{place}]"
        if event.times > 1 and not event.every:
            raise _wrong(file, f"{path}.times", "it happens more than once, and nothing says how often", "every = …")
        longest_s = lasting_s(event) + event.jitter
        if event.times > 1 and event.every <= longest_s:
            reason = f"{event.every:g} s is over before for and jitter are ({longest_s:g} s)"
            raise _wrong(file, f"{path}.every", reason)
        ends_s = event.at + (event.times - 1) * event.every + longest_s
        if ends_s > scenario.duration + SAME_S:
            reason = f"it ends at {ends_s:g} s at the latest, after the scenario ({scenario.duration:g} s)"
            raise _wrong(file, f"{path}.at", reason, "a longer duration")
        if isinstance(event, Loss | Flap) and not EACH_MIN_S <= event.each <= EACH_MAX_S:
            raise _wrong(
                file, f"{path}.each", f"is not within {1000 * EACH_MIN_S:g} ms and {EACH_MAX_S / 60:g} minutes"
            )
        if isinstance(event, WrongClock) and not (event.by or event.unset or event.drift_ppm):
            raise _wrong(file, path, "the clock is not wrong", "by, drift_ppm, or unset = true")
    _check_overlaps(scenario, file)


def _check_overlaps(scenario: Scenario, file: Path) -> None:
    """A link has one fault at a time, a part stands still once."""
    for kinds, what in ((LinkEvent, "the link has one fault at a time"), (Pause, "a part stands still once at a time")):
        spans = sorted(
            (start_s, start_s + event.jitter + lasting_s(event), place)
            for place, event in enumerate(scenario.event)
            if isinstance(event, kinds)
            for start_s in (event.at + number * event.every for number in range(event.times))
        )
        for (_, end_s, first), (start_s, _, second) in itertools.pairwise(spans):
            if start_s < end_s - SAME_S:
                reason = f"may begin at {start_s:g} s, and event[{first}] lasts until {end_s:g} s; {what}"
                raise _wrong(file, f"event[{second}].at", reason)


def _wrong(file: Path, path: str, reason: str, remedy: str = "") -> ConfigError:
    line = line_of(file.read_text(), path)
    return ConfigError(f"{file}{'' if line is None else f', line {line}'}: {path}: {reason}", remedy)


def _words(event: AnyEvent, devices: int) -> str:
    whom = "1 device" if devices == 1 else f"{devices} devices"
    match event:
        case Cut():
            return "link cut"
        case BlackHole() | Stall():
            name = "black hole" if isinstance(event, BlackHole) else "stall"
            return f"link: {name}{_way(event.direction)}"
        case Delay():
            return f"link: {1000 * event.latency:,.0f} ms late{_way(event.direction)}"
        case Throttle():
            return f"link: {event.bytes_per_s:,} bytes/s{_way(event.direction)}"
        case Loss():
            return f"link: loss every {event.each:g} s"
        case Flap():
            return f"link: comes and goes every {event.each:g} s"
        case BrownOut():
            return f"brown-out of {whom}"
        case Restart():
            return f"firmware restart of {whom}"
        case Late():
            return f"{whom} buffer and send late"
        case Unplug():
            return f"{whom} unplugged"
        case Duplicates():
            return f"{whom} repeat {event.messages} messages"
        case Malformed():
            return f"{whom} garble {event.messages}"
        case WrongClock():
            drift = f", {event.drift_ppm:+g} ppm" if event.drift_ppm else ""
            return f"clock of {whom} {'unset' if event.unset else f'off by {_signed(event.by)}'}{drift}"
        case Burst():
            return f"{event.factor:g} times as many messages"
        case Kill():
            return f"{event.part} killed"
        case Pause():
            return f"{event.part} stands still"


def _way(direction: str) -> str:
    return "" if direction == "both" else f", {direction}"


def _signed(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if abs(seconds) >= length_s:
            return f"{seconds / length_s:+g} {unit}"
    return f"{seconds:+g} s"
