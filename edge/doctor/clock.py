"""Whether the machine knows the time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from edge.doctor.finding import Finding, Site, ok, warning
from edge.listeners.clock import ClockSource, SystemClock
from protocols.messages import ClockState

_REMEDY = "install and start a time service: apt-get install chrony, or systemctl enable --now systemd-timesyncd"


def check(_site: Site) -> Iterator[Finding]:
    yield of(SystemClock())


def of(clock: ClockSource) -> Finding:
    state, wall_ms = clock.state(), clock.wall_ms()
    shown = datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    up = f"up for {clock.boot_ms() // 60_000:,} min"
    if state is ClockState.SYNCHRONIZED:
        return ok("clock", f"synchronized within {clock.error_ms():,} ms; {shown}, {up}")
    if state is ClockState.UNSET:
        what = f"was never set: it shows {shown}, {up}; messages are dated once the cloud or a time service tells"
        return warning("clock", what, _REMEDY)
    what = f"nobody synchronizes it; {shown}, {up}; messages are dated by the cloud once the link is up"
    return warning("clock", what, _REMEDY)
