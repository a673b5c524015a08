"""The gateway that runs, by what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edge.doctor.finding import Finding, Site, failed, ok, warning
from edge.status.accounting import Accounting, ListenerFigures

FULL_PART: Final = 0.8
"""Of the log's cap: time to look at the link, before the oldest telemetry goes."""


def check(site: Site) -> Iterator[Finding]:
    if site.running is None:
        yield warning("gateway", f"none runs on {site.data_dir}", site.start_command)
        return
    if site.accounting is None:
        seen = f"process {site.running.pid} does not answer at {site.running.status_url or 'its status page yet'}"
        yield failed("gateway", seen, "if this stays so, restart it, and keep what it logged")
        return
    yield ok("gateway", f"{site.accounting.gateway} runs, process {site.running.pid}")
    yield from of(site.accounting)


def of(seen: Accounting) -> Iterator[Finding]:
    # The command `status` says the same things in the same words.
    from edge.cli.status import accounting_line, backlog_line, clock_line, link_line, losses_line

    line = accounting_line(seen)
    yield ok("accounting", line) if seen.closed else failed("accounting", line, "keep the data folder, and tell us")
    yield _log(seen)
    if seen.link.state == "up":
        yield ok("link", link_line(seen))
    else:
        yield warning("link", link_line(seen), "see what is said of the cloud; devices are served meanwhile")
    yield ok("backlog", backlog_line(seen))
    if losses := losses_line(seen):
        remedy = "raise log.max_bytes, and see to link and disk; GET /api/v1/gaps of the cloud lists what was lost"
        yield warning("losses", losses, remedy)
    if seen.clock.is_disputed:
        yield warning("gateway clock", clock_line(seen), "see which time service sets this machine's clock")
    if seen.refused:
        yield warning(
            "refused", _by_reason("records", seen.refused), "log-full: see the log; else look into the gateway's output"
        )
    if seen.turned_away:
        remedy = "tidegate-edge tail --rejected shows each with its reason and bytes"
        yield warning("turned away", _by_reason("packets and connections", seen.turned_away), remedy)
    if seen.resolver.rejected:
        remedy = "tidegate-edge tail --rejected shows them; mend the network's codec, and replay them in the cloud"
        yield warning("rejected", f"records that do not decode: {seen.resolver.rejected:,}", remedy)
    for listener in seen.listeners:
        yield _listener(listener, seen.project)


def _log(seen: Accounting) -> Finding:
    log = seen.log
    used = f"{log.used_bytes:,} of {log.max_bytes:,} bytes"
    if log.trouble:
        return failed("log", f"takes nothing: {log.trouble}", "see to the disk; devices keep what is not acknowledged")
    if log.used_bytes > FULL_PART * log.max_bytes and seen.totals.pending:
        return warning("log", f"{used}: nearly full", "see to the link, or raise log.max_bytes")
    return ok("log", used)


def _listener(listener: ListenerFigures, project: str) -> Finding:
    what = f"listener {listener.name}"
    seen = f"{listener.kind} {listener.place}, {listener.connections:,} connected, {listener.recorded:,} records"
    if listener.trouble:
        return warning(what, f"{seen}; {listener.trouble}", "see to what it waits for")
    if not listener.network_known:
        remedy = f"make the network in the cloud, or set the listener's network to one of project {project}"
        return warning(what, f"{seen}; network {listener.network} is not in project {project}", remedy)
    return ok(what, seen)


def _by_reason(what: str, counts: dict[str, int]) -> str:
    return f"{what}: " + ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))
