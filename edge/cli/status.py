"""`tidegate-edge status`: where every record is, and how the running gateway stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir

if TYPE_CHECKING:
    from edge.status.accounting import Accounting, PushedFigures

COLUMNS: Final = {"part": "part", "state": "state"}
BAR_CHARS: Final = 24
WATCH_S: Final = 1.0
_SIZES: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def status(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C.")] = False,
) -> None:
    """Show where every record is, the link, and how long the backlog will take."""
    from edge.cli.gateway import RunningGateway
    from edge.status.accounting import Accounting
    from tidegate.console import live, print_json, show

    gateway = RunningGateway(config_file, data_dir)
    if not watch:
        seen = gateway.get("/accounting", Accounting)
        if as_json:
            print_json(seen)
        else:
            show(rows(seen), columns=COLUMNS, as_json=False)
        return
    with live(COLUMNS) as screen:
        while True:
            seen = gateway.get("/accounting", Accounting)
            if as_json:
                print_json(seen)
            else:
                screen.show(rows(seen))
            time.sleep(WATCH_S)


def rows(seen: Accounting) -> list[Mapping[str, Any]]:
    """What is shown, line by line."""
    parts = [
        ("gateway", f"{seen.gateway} of project {seen.project}, up for {duration(seen.now_ms - seen.started_ms)}"),
        ("accounting", accounting_line(seen)),
        ("backlog", backlog_line(seen)),
        ("log", f"{size(seen.log.used_bytes)} of {size(seen.log.max_bytes)}{_trouble(seen)}"),
        ("link", link_line(seen)),
        ("clock", clock_line(seen)),
    ]
    if lost := losses_line(seen):
        parts.append(("lost", lost))
    for one in seen.listeners:
        devices = f"{one.connections:,} connection{'' if one.connections == 1 else 's'}"
        trouble = f"; {one.trouble}" if one.trouble else ""
        unknown = "" if one.network_known else f"; network {one.network} is not in project {seen.project}"
        state = f"{one.kind} {one.place}, {devices}, {one.recorded:,} records{unknown}{trouble}"
        parts.append((f"listener {one.name}", state))
    registry = seen.registry
    known = f"revision {registry.revision}, devices: {registry.devices:,}" if registry.revision else "never received"
    parts.append(("registry", known))
    if seen.pushed is not None and (seen.pushed.in_force or seen.pushed.refused):
        parts.append(("configuration", configuration_line(seen.pushed)))
    if seen.refused:
        parts.append(("refused", f"records: {_by_reason(seen.refused)}"))
    if seen.resolver.rejected:
        which = "records that cannot be decoded (tidegate-edge tail --rejected)"
        parts.append(("rejected", f"{which}: {seen.resolver.rejected:,}"))
    if seen.turned_away:
        parts.append(("turned away", f"packets and connections: {_by_reason(seen.turned_away)}"))
    return [{"part": part, "state": state} for part, state in parts]


def accounting_line(seen: Accounting) -> str:
    totals = seen.totals
    closed = "" if seen.closed else "  DOES NOT CLOSE"
    return (
        f"logged {totals.logged:,} = accepted {totals.accepted:,} + pending {totals.pending:,}"
        f" + evicted {totals.evicted:,} + damaged {totals.damaged:,}{closed}"
    )


def losses_line(seen: Accounting) -> str:
    """Empty while nothing was lost."""
    totals, log = seen.totals, seen.log
    lost = [
        f"{count:,} {what}"
        for count, what in (
            (totals.evicted, "evicted, as the log was full"),
            (totals.damaged, "damaged on the disk"),
            (log.tails, "torn end" if log.tails == 1 else "torn ends"),
        )
        if count
    ]
    if not lost:
        return ""
    waits = f"{log.gaps_untold:,} gaps wait to be told" if log.gaps_untold != 1 else "1 gap waits to be told"
    return f"{', '.join(lost)}; {waits if log.gaps_untold else 'the cloud knows'}"


def backlog_line(seen: Accounting) -> str:
    """While there is one: a bar from its peak to nothing, and how long that will take."""
    log, pending = seen.log, seen.totals.pending
    if not log.backlog_peak or log.oldest_pending_ms is None:
        return "none" if not pending else f"none; {pending:,} on their way"
    done = max(0, log.backlog_peak - pending)
    filled = BAR_CHARS * done // log.backlog_peak
    bar = "█" * filled + "░" * (BAR_CHARS - filled)
    waits = f"{pending:,} wait, the oldest for {duration(seen.now_ms - log.oldest_pending_ms)}"
    if seen.link.state != "up":
        return f"{waits}; held until the link is up"
    drain_s = seen.link.drain_s
    left = "nothing moves" if drain_s is None else f"about {duration(round(1000 * drain_s))} left"
    return f"{bar} {100 * done // log.backlog_peak} %  {waits}; {seen.link.accepted_per_s:,.0f} a second, {left}"


def link_line(seen: Accounting) -> str:
    link = seen.link
    since = duration(seen.now_ms - link.since_ms)
    if link.state == "up":
        trip = "" if link.round_trip_ms is None else f", {link.round_trip_ms:.0f} ms there and back"
        limit = f", at most {size(link.bytes_per_s_max)} a second" if link.bytes_per_s_max else ""
        paused = ", the cloud has backfill wait" if link.backfill_credit_bytes == 0 else ""
        return f"up for {since}{trip}{limit}{paused}"
    again = max(0, link.retry_at_ms - seen.now_ms)
    retry = f"; next attempt in {duration(again)}" if link.retry_at_ms else ""
    return f"{link.state} for {since}: {link.reason or link.url}{retry}"


def configuration_line(pushed: PushedFigures) -> str:
    whose = "listeners pushed by the cloud" if pushed.in_force else "listeners of the file"
    if not pushed.refused:
        return f"{whose}, revision {pushed.revision}"
    remedy = f"; {pushed.remedy}" if pushed.remedy else ""
    return f"{whose}; revision {pushed.revision} of the cloud REFUSED: {pushed.refused}{remedy}"


def clock_line(seen: Accounting) -> str:
    clock = seen.clock
    if clock.state == "synchronized":
        return f"synchronized{_within(clock.error_ms)}"
    if clock.error_ms is None:
        return f"{clock.state}; true time is not known, until the link is up or a time service sets the clock"
    ahead_ms = clock.wall_ms - seen.now_ms
    off = f"{duration(abs(ahead_ms))} {'ahead' if ahead_ms > 0 else 'behind'}" if abs(ahead_ms) >= 1000 else "right"
    disputed = "; the kernel says that it is synchronized, THE CLOUD CONTRADICTS" if clock.is_disputed else ""
    return f"{clock.state}, {off}; true time{_within(clock.error_ms)}, anchored by the {clock.anchor}{disputed}"


def _within(error_ms: int | None) -> str:
    return "" if error_ms is None else f" within {error_ms:,} ms"


def duration(milliseconds: int) -> str:
    """`45 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`."""
    seconds = max(0, milliseconds) // 1000
    if seconds < 60:
        return f"{seconds} s"
    for unit, length, below, lower in (("min", 60, "s", 1), ("h", 3600, "min", 60), ("d", 86_400, "h", 3600)):
        if seconds < length * {"min": 60, "h": 24, "d": 10**9}[unit]:
            rest = seconds % length // lower
            return f"{seconds // length} {unit}" + (f" {rest} {below}" if rest else "")
    raise AssertionError("the last unit takes all")


def size(count: int) -> str:
    for unit, length in _SIZES:
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def _trouble(seen: Accounting) -> str:
    return f"  TAKES NOTHING: {seen.log.trouble}" if seen.log.trouble else ""


def _by_reason(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
