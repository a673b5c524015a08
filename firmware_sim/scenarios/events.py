"""What can go wrong at a moment of a scenario: one struct a kind, its fields as TOML writes them. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

DURATION_MAX_S: Final = 86_400.0
"""A scenario is watched; what takes days is written with --speed in mind, and in seconds."""
WRONG_MAX_S: Final = 100 * 365 * 86_400.0
"""A clock that is wrong by more than a century is unset."""
REPEATS_MAX: Final = 500
MESSAGES_MAX: Final = 100
"""As many as a device of a scenario remembers."""
DRIFT_PPM_MAX: Final = 500_000.0
"""Half a second each second: a resonator that swings at its harmonic."""

_DURATION: Final = re.compile(r"([+-]?)(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Span(float):
    """Seconds, 0 to DURATION_MAX_S, written `250ms`, `10s`, `1.5m`, `2h`."""


class Offset(float):
    """Seconds, of either sign, written `-2h`, `+90s`, `30d`."""


def decode(kind: type, value: Any) -> Any:
    """For `tidegate.config.load`. Raises ValueError."""
    if kind not in (Span, Offset):
        # msgspec's way to be told that a decoder does not know a type: a defect of the format, never of a file.
        raise NotImplementedError(f"a scenario has no field of type {kind}")
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None or (kind is Span and found[1]):
        example = "10s, 1.5m, 250ms" if kind is Span else "-2h, +90s, 30d"
        raise ValueError(f"is not a time with its unit in quotes ({example})")
    seconds = float(found[1] + found[2]) * _UNITS_S[found[3]]
    limit_s = DURATION_MAX_S if kind is Span else WRONG_MAX_S
    if abs(seconds) > limit_s:
        raise ValueError(f"is above the maximum, {limit_s / 86_400:g} days")
    return kind(seconds)


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what"):
    """What all kinds have."""

    at: Span
    """When, from the start."""
    every: Span = Span(0)
    times: Annotated[int, msgspec.Meta(ge=1, le=REPEATS_MAX)] = 1
    """So many, `every` so often."""
    jitter: Span = Span(0)
    """Each up to so much later, at random by the seed."""
    note: Annotated[str, msgspec.Meta(max_length=120)] = ""
    """Why, for the reader."""


class _Lasting(Event, frozen=True, kw_only=True):
    lasts: Span = msgspec.field(name="for")


class _LinkFault(_Lasting, frozen=True, kw_only=True):
    direction: Literal["both", "up", "down"] = "both"
    """up: from the gateway to the cloud."""


class Cut(_Lasting, frozen=True, tag="cut"):
    """The link between gateway and cloud is reset, and each new one."""


class BlackHole(_LinkFault, frozen=True, tag="black-hole"):
    """The link takes bytes and gives none on."""


class Stall(_LinkFault, frozen=True, tag="stall"):
    """The link takes nothing, and goes on afterwards."""


class Delay(_LinkFault, frozen=True, kw_only=True, tag="delay"):
    """Everything on the link comes later by `latency`."""

    latency: Span


class Throttle(_LinkFault, frozen=True, kw_only=True, tag="throttle"):
    """`bytes_per_s` get through each way."""

    bytes_per_s: Annotated[int, msgspec.Meta(ge=100, le=1_000_000_000)]


class Loss(_Lasting, frozen=True, kw_only=True, tag="loss"):
    """Every `each` on average a connection stands still for a while, or is reset."""

    each: Span


class Flap(_Lasting, frozen=True, kw_only=True, tag="flap"):
    """The link comes and goes, within `each` on average."""

    each: Span


class _OfDevices(Event, frozen=True, kw_only=True):
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    """Of the devices, chosen by the seed; at least one."""


class _LastingOfDevices(_OfDevices, frozen=True, kw_only=True):
    lasts: Span = msgspec.field(name="for")


class BrownOut(_LastingOfDevices, frozen=True, tag="brown-out"):
    """Devices have no power: what was in their memory is lost."""


class Restart(_LastingOfDevices, frozen=True, tag="restart"):
    """Devices' firmware restarts and keeps what it has not delivered."""


class Late(_LastingOfDevices, frozen=True, tag="late"):
    """Devices measure and send nothing; then all of it, with the times of the measurements."""


class Unplug(_LastingOfDevices, frozen=True, tag="unplug"):
    """Devices' cables are out: they measure and reach nobody; then they deliver."""


class Duplicates(_OfDevices, frozen=True, tag="duplicates"):
    """Devices send their last `messages` again, although they were acknowledged."""

    messages: Annotated[int, msgspec.Meta(ge=1, le=MESSAGES_MAX)] = 5


class Malformed(_OfDevices, frozen=True, tag="malformed"):
    """The next `messages` of devices are nothing that can be read."""

    messages: Annotated[int, msgspec.Meta(ge=1, le=MESSAGES_MAX)] = 1


class WrongClock(_LastingOfDevices, frozen=True, kw_only=True, tag="wrong-clock"):
    """Devices' clocks are off `by` so much, or unset (1970), and gain `drift_ppm`."""

    by: Offset = Offset(0)
    unset: bool = False
    drift_ppm: Annotated[float, msgspec.Meta(ge=-DRIFT_PPM_MAX, le=DRIFT_PPM_MAX)] = 0.0


class Burst(_Lasting, frozen=True, kw_only=True, tag="burst"):
    """Devices measure so many times as often (below 1: less often)."""

    factor: Annotated[float, msgspec.Meta(ge=0.01, le=100.0)]


class Kill(Event, frozen=True, kw_only=True, tag="kill"):
    """A part ends at once (SIGKILL), and is started again by who keeps it running."""

    part: Literal["gateway", "cloud"]


class Pause(_Lasting, frozen=True, kw_only=True, tag="pause"):
    """A part stands still (SIGSTOP), as on a machine that has no memory left, and goes on."""

    part: Literal["gateway", "cloud"]


LinkEvent = Cut | BlackHole | Stall | Delay | Throttle | Loss | Flap
DeviceEvent = BrownOut | Restart | Late | Unplug | Duplicates | Malformed | WrongClock | Burst
PartEvent = Kill | Pause
AnyEvent = LinkEvent | DeviceEvent | PartEvent
KINDS: Final = tuple(str(kind.__struct_config__.tag) for kind in get_args(AnyEvent))
