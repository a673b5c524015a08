"""The report: everything in one file, drawn to scale, and nothing in it that a scenario's text could break."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firmware_sim.cli.scenario import left_out, scene_line
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings
from firmware_sim.fleet import FleetState
from firmware_sim.scenarios.charts import LEFT, PLOT, Bar, Scale, Series, chart, lanes, round_ticks
from firmware_sim.scenarios.director import Happening, Part
from firmware_sim.scenarios.recording import Sample
from firmware_sim.scenarios.report import page, rates
from firmware_sim.scenarios.runner import Run, RunPlan, Scene
from firmware_sim.scenarios.timeline import find, read
from firmware_sim.verdict import Verdict
from firmware_sim.verify import Pipeline, Proof, VerifyPlan

ELSEWHERE = re.compile(r"""(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)|fetch\(|<link|<iframe""")
VOID = {"meta", "br", "path"}


class Nesting(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """A path, a rect: closed by itself."""

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def sample(at_s: float, made: int, pending: int | None = 0, link: str = "up") -> Sample:
    return Sample(at_s, made, made, 0, 2, pending=pending, link=link, stored=made, in_pipeline=0)


def run(**changes: Any) -> Run:
    fleet = msgspec.convert(
        {
            field.name: "" if field.name == "refusal" else 7
            for field in msgspec.structs.fields(FleetState)
        },
        FleetState,
    )  # fmt: skip
    verdicts = (Verdict("pump-01", "demo", made=1234, acknowledged=1234, stored=1230, in_gaps=4),)
    proof = Proof(
        Verdict("all", "", made=1234, acknowledged=1234, stored=1230, in_gaps=4),
        verdicts,
        Pipeline(),
        (),
        0,
        True,
        False,
    )
    happened = (
        Happening(1.0, 3.0, "link cut", "a <script>alert(1)</script>", (), part=Part.LINK),
        Happening(2.0, 2.0, "gateway killed", "", (), "only the demo's processes are known", Part.SITE),
        Happening(2.5, 2.5, "1 device garble 3", "", ("pump-01",)),
    )
    samples = (sample(0.0, 0), sample(1.0, 10), sample(2.0, 20, 10, "down"), sample(3.0, 30, None, ""), sample(4.0, 40))
    values = {
        "name": "odd & even", "title": "What <b>is</b>", "seed": 3, "speed": 2.0, "began_ms": 1_790_000_000_000,
        "timeline_s": 4.0, "happened": happened, "samples": samples, "fleet": fleet, "proof": proof,
    }  # fmt: skip
    return Run(**(values | changes))


def test_the_page_is_whole_and_needs_nothing_from_elsewhere() -> None:
    made = page(run(), 'title = "What <b>is</b>"')
    assert ELSEWHERE.search(made) is None
    nesting = Nesting()
    nesting.feed(made)
    assert not nesting.open
    assert "prefers-color-scheme: dark" in made
    for text in ("odd & even", "What <b>is</b>", "a <script>alert(1)</script>", "holds", "1,234"):
        assert text in nesting.texts, text
    assert made.count("<script>") == 1
    assert any("left out: only the demo's processes are known" in text for text in nesting.texts)


def test_a_proof_that_does_not_hold_is_not_green() -> None:
    lost = Verdict("all", "", made=3, acknowledged=3, stored=2, missing=1, faults=("pump-01 boot 4 seq 2: gone",))
    made = page(run(proof=Proof(lost, (lost,), Pipeline(), (), 0, True, False)), "")
    assert '<span class="pill lost">lost</span>' in made
    assert "pump-01 boot 4 seq 2: gone" in made
    assert '<td class="num wrong">1</td>' in made
    assert "✓" not in made


def test_a_run_without_a_sample_has_a_page_too() -> None:
    assert "odd &amp; even" in page(run(samples=(), happened=()), "")


def test_rates_are_over_a_second_at_least_and_unknown_where_a_count_is() -> None:
    samples = [sample(0.5 * number, 5 * number, None if number == 4 else number) for number in range(8)]
    assert [round(rate or 0, 1) for _, rate in rates(samples, lambda one: one.made)] == [10.0] * 7
    unknown = [at_s for at_s, rate in rates(samples, lambda one: one.pending) if rate is None]
    assert unknown == [2.0, 3.0]


def test_lines_are_drawn_to_scale_and_break_where_nothing_is_known() -> None:
    drawn = chart(
        Scale(10.0), [Series("x", "made", [(0.0, 0.0), (5.0, 10.0), (6.0, None), (10.0, 10.0)])], [], height=116
    )
    paths = re.findall(r'class="line made" d="([^"]+)"', drawn)
    assert paths == [
        f"M{LEFT} 110.0L{LEFT + PLOT / 2} 10.0".replace(f"M{LEFT} ", f"M{float(LEFT)} "),
        f"M{float(LEFT + PLOT)} 10.0",
    ]


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(0.0, [0, 1]), (1.0, [0, 0.5, 1]), (3.0, [0, 1, 2, 3]), (10.0, [0, 5, 10]), (1010.0, [0, 500, 1000, 1500])],
)
def test_ticks_are_round_and_reach_the_highest(highest: float, ticks: list[float]) -> None:
    assert round_ticks(highest) == ticks


def test_bars_whose_texts_would_meet_are_in_rows_of_their_own() -> None:
    bars = [Bar(at_s, at_s, "brown-out of 5 devices", "", "devices") for at_s in (1.0, 2.0, 60.0)]
    drawn = lanes(Scale(100.0), [("devices", bars)])
    rows = re.findall(r'<rect class="bar devices" x="[\d.]+" y="(\d+)"', drawn)
    assert rows[0] != rows[1]
    assert rows[2] == rows[0]


def test_the_live_line_says_what_happens_and_what_comes_next_in_the_width_there_is() -> None:
    scene = Scene(34.0, 90.0, "link cut, 3 s left", "in 4 s: stall", sample(34.0, 812, 120, "down"))
    assert scene_line(scene, 200) == (
        "0:34 of 1:30 · link cut, 3 s left · in 4 s: stall · acknowledged 812 of 812 · pending 120 · link down"
    )
    assert scene_line(scene, 60) == "0:34 of 1:30 · link cut, 3 s left · in 4 s: stall"
    assert len(scene_line(scene, 20)) <= 20
    quiet = msgspec.structs.replace(scene, now="", next="", sample=None)
    assert scene_line(quiet, 200) == "0:34 of 1:30 · all well"


def test_what_cannot_be_played_is_said_before_it_begins(tmp_path: Path) -> None:
    plan = RunPlan(
        "power-cut", read(find("power-cut")), (RosterDevice("p"),), DeviceSettings(), tmp_path,
        VerifyPlan(tmp_path, (), "demo", 1.0), 0, None, 1, 1.0,
    )  # fmt: skip
    assert left_out(plan) == [
        "the link's faults are left out: no link proxy is known (--control-port)",
        "what befalls gateway and cloud is left out: only the demo's processes are known, and started again (make run)",
    ]
    assert left_out(msgspec.structs.replace(plan, control_port=1, run_folder=tmp_path)) == []
