"""The report of a run: one HTML file with everything in it. Pure."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

import msgspec

from firmware_sim.proof_words import accounts, columns_of, conclusion, row_of
from firmware_sim.scenarios.charts import LEFT, PLOT, WIDTH, Bar, Scale, Series, chart, clock, lanes, strip
from firmware_sim.scenarios.director import Happening, Part
from firmware_sim.scenarios.recording import Sample
from firmware_sim.scenarios.runner import Run
from firmware_sim.verdict import Verdict
from firmware_sim.verify import Outcome, Proof

_PAGE: Final = Path(__file__).with_name("report.html")
RATE_S: Final = 1.0
"""A rate is of at least so long: of shorter times it is noise."""
CHART: Final = 140
LOW_CHART: Final = 76
_LANES: Final = {Part.LINK: "link", Part.DEVICES: "devices", Part.SITE: "site"}
_STYLES: Final = {Part.LINK: "link", Part.DEVICES: "devices", Part.SITE: "parts"}
_SAID: Final = {Outcome.HOLDS: "good", Outcome.WAITING: "warn", Outcome.LOST: "bad"}
_NEVER: Final = ("missing", "doubled")


def page(run: Run, source: str) -> str:
    """`source`: the scenario's file."""
    samples = run.samples
    scale = Scale(max(run.timeline_s, samples[-1].at_s if samples else 0.0))
    return Template(_PAGE.read_text()).substitute(
        name=escape(run.name),
        title=escape(run.title),
        verdict=run.proof.verdict.value,
        facts=escape(_facts(run)),
        sums=_sums(run.proof.total),
        timeline=lanes(
            scale, [(_LANES[part], _bars(run.happened, part)) for part in Part if _bars(run.happened, part)]
        ),
        charts=_charts(run, scale),
        ledger=_ledger(run.proof),
        conclusion="".join(
            f'<p class="said {_SAID[run.proof.verdict]}">{escape(line)}</p>' for line in conclusion(run.proof)
        ),
        accounts="".join(f"<dt>{escape(whose)}</dt><dd>{escape(text)}</dd>" for whose, text in accounts(run.proof)),
        happened=_happened(run.happened),
        source=escape(source),
        footer=escape(_footer(run)),
        samples=msgspec.json.encode(
            [[one.at_s, one.acknowledged, one.made, one.pending, one.buffered, one.link] for one in samples]
        ).decode(),
        span=scale.span_s,
        left=LEFT,
        plot=PLOT,
        width=WIDTH,
    )


def rates(samples: Sequence[Sample], count: Callable[[Sample], int | None]) -> list[tuple[float, float | None]]:
    """How fast a count rises, a second, over the last RATE_S; None where it is not known."""
    found: list[tuple[float, float | None]] = []
    first = 0
    for last, sample in enumerate(samples):
        while first + 1 < last and sample.at_s - samples[first + 1].at_s >= RATE_S:
            first += 1
        before, now = count(samples[first]), count(sample)
        passed_s = sample.at_s - samples[first].at_s
        if last and passed_s > 0:
            found.append((sample.at_s, None if before is None or now is None else max(now - before, 0) / passed_s))
    return found


def _facts(run: Run) -> str:
    began = datetime.datetime.fromtimestamp(run.began_ms / 1000, datetime.UTC)
    fleet = run.fleet
    speed = f" · {run.speed:g} times as fast as written" if run.speed != 1 else ""
    return (
        f"{began:%Y-%m-%d %H:%M:%S} UTC · {clock(run.timeline_s)} and the wait for what was on its way · "
        f"{fleet.devices} devices, rebooted {fleet.rebooted:,} times, connected {fleet.connects:,} times · "
        f"seed {run.seed}{speed}"
    )


def _footer(run: Run) -> str:
    beside = (
        "Gateway and cloud serve other devices too: their messages are part of stored, pending and the accounts. "
        if run.proof.fleet_running
        else ""
    )
    return f"{beside}Made by tidegate-sim scenario; the ledger is compared with what the public API shows."


def _sums(total: Verdict) -> str:
    """The proof at a glance; of what is rare only what there is."""
    always = ("made", "acknowledged", "stored", "in_gaps", "missing", "doubled")
    rare = tuple(name for name in ("rejected", "unresolved", "dropped", "unacknowledged") if getattr(total, name))
    parts = []
    for name in (*always[:4], *rare, *always[4:]):
        value = getattr(total, name)
        style = ("wrong" if name in _NEVER else "some") if value else "none"
        parts.append(f'<div class="{style}"><b>{value:,}</b><small>{name.replace("_", " ")}</small></div>')
    return "".join(parts)


def _charts(run: Run, scale: Scale) -> str:
    samples = run.samples
    bands = [
        Bar(one.at_s, one.until_s, "", one.what, "link" if one.part is Part.LINK else "instant")
        for one in run.happened
        if not one.left_out and (one.part is Part.LINK or one.until_s <= one.at_s)
    ]
    bands.append(Bar(run.timeline_s, run.timeline_s, "", "the timeline's end", "end"))
    flow = [
        Series("made", "made", rates(samples, lambda one: one.made)),
        Series("acknowledged", "acknowledged", rates(samples, lambda one: one.acknowledged)),
    ]
    stored = [Series("stored", "stored-area", rates(samples, lambda one: one.stored))]
    backlog = [
        Series("pending at the gateway", "pending-area", [(one.at_s, _float(one.pending)) for one in samples]),
        Series("buffered in devices", "buffered", [(one.at_s, float(one.buffered)) for one in samples]),
        Series("in the cloud's pipeline", "pipeline", [(one.at_s, _float(one.in_pipeline)) for one in samples]),
    ]
    connected = [Series("devices connected", "connected", [(one.at_s, float(one.connected)) for one in samples])]
    return "".join(
        (
            f"<div>{strip(scale, 'link is', _link_states(samples))}</div>",
            _panel("Messages a second, of these devices", flow, chart(scale, flow, bands, height=CHART)),
            _panel("Stored a second, of all devices", [], chart(scale, stored, bands, height=LOW_CHART)),
            _panel("Waiting", backlog, chart(scale, backlog, bands, height=CHART)),
            _panel("Devices connected", [], chart(scale, connected, bands, height=LOW_CHART)),
        )
    )


def _panel(title: str, series: Sequence[Series], drawn: str) -> str:
    keys = "".join(f'<span class="key {line.style}"><i></i>{escape(line.name)}</span>' for line in series)
    return f'<div><div class="head"><h2>{escape(title)}</h2>{keys}</div>{drawn}</div>'


def _link_states(samples: Sequence[Sample]) -> list[Bar]:
    """Each state for as long as it was seen."""
    bars: list[Bar] = []
    for sample, following in itertools.pairwise(samples):
        state = sample.link or "unknown"
        if bars and bars[-1].text == state:
            bars[-1] = msgspec.structs.replace(bars[-1], until_s=following.at_s)
        else:
            style = "up" if state == "up" else "unknown" if state == "unknown" else "down"
            bars.append(Bar(sample.at_s, following.at_s, state, f"link {state}", style))
    return bars


def _bars(happened: Sequence[Happening], part: Part) -> list[Bar]:
    return [
        Bar(
            one.at_s,
            one.until_s,
            one.what.removeprefix("link: ").removeprefix("link "),
            _hint(one),
            "out" if one.left_out else _STYLES[part],
        )
        for one in happened
        if one.part is part
    ]


def _hint(one: Happening) -> str:
    lasted = f", {one.until_s - one.at_s:.1f} s" if one.until_s > one.at_s else ""
    return "\n".join(
        filter(None, (f"{one.at_s:.1f} s: {one.what}{lasted}", one.note, one.left_out, ", ".join(one.devices)))
    )


def _ledger(proof: Proof) -> str:
    columns = columns_of(proof)
    head = "".join(
        f"<th{'' if key in ('network', 'name') else ' class=num'}>{escape(word)}</th>" for key, word in columns.items()
    )
    rows = "".join(_ledger_row(verdict, columns, "") for verdict in proof.devices)
    return f"<table><tr>{head}</tr>{rows}{_ledger_row(proof.total, columns, ' class=total')}</table>"


def _ledger_row(verdict: Verdict, columns: Mapping[str, str], style: str) -> str:
    cells = []
    for key, value in row_of(verdict).items():
        if key not in columns:
            continue
        if isinstance(value, int):
            kind = "num wrong" if value and key in _NEVER else "num zero" if not value else "num"
            cells.append(f'<td class="{kind}">{value:,}</td>')
        else:
            cells.append(f"<td>{escape(str(value))}</td>")
    return f"<tr{style}>{''.join(cells)}</tr>"


def _happened(happened: Sequence[Happening]) -> str:
    rows = "".join(
        f'<tr><td class="num">{one.at_s:.1f} s</td><td>{escape(one.what)}</td>'
        f'<td class="num">{f"{one.until_s - one.at_s:.1f} s" if one.until_s > one.at_s else ""}</td>'
        f'<td class="text">{escape(f"left out: {one.left_out}" if one.left_out else one.note)}</td></tr>'
        for one in happened
    )
    return f"<table><tr><th class=num>at</th><th>what</th><th class=num>lasted</th><th></th></tr>{rows}</table>"


def _float(count: int | None) -> float | None:
    return None if count is None else float(count)
