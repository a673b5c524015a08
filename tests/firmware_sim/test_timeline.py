"""Scenarios as files: what may stand there, what is said when it is wrong, and what they are laid out as."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firmware_sim.scenarios import timeline
from firmware_sim.scenarios.events import KINDS
from firmware_sim.scenarios.timeline import moments, read, shipped
from tidegate.config import ConfigError, settings
from tidegate.console import UserError

TEXT = """\
title = "Two cuts"
duration = "90s"

[fleet]
devices = 12

[[event]]
what = "cut"
at = "3s"
for = "5s"

[[event]]
what = "brown-out"
at = "10s"
for = "500ms"
every = "5s"
times = 3
jitter = "2s"
share = 0.25
"""


def scenario(tmp_path: Path, text: str = TEXT) -> Path:
    path = tmp_path / "one.toml"
    path.write_text(text)
    return path


def laid_out(tmp_path: Path, seed: int = 1) -> list[timeline.Moment]:
    return moments(read(scenario(tmp_path)), devices=12, seed=seed)


def test_moments_come_in_order_with_their_ends_and_whom_they_befall(tmp_path: Path) -> None:
    cut, *brown_outs = laid_out(tmp_path)
    assert (cut.at_s, cut.until_s, cut.text, cut.places) == (3.0, 8.0, "link cut", ())
    assert len(brown_outs) == 3
    for number, moment in enumerate(brown_outs):
        assert 10 + 5 * number <= moment.at_s <= 12 + 5 * number
        assert moment.until_s - moment.at_s == pytest.approx(0.5)
        assert moment.text == "brown-out of 3 devices"
        assert len(set(moment.places)) == 3
        assert set(moment.places) <= set(range(12))


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    assert laid_out(tmp_path) == laid_out(tmp_path)
    assert laid_out(tmp_path) != laid_out(tmp_path, seed=2)


def test_a_share_is_at_least_one_device(tmp_path: Path) -> None:
    played = read(scenario(tmp_path, TEXT.replace("0.25", "0.001")))
    assert all(len(moment.places) == 1 for moment in moments(played, devices=3, seed=1)[1:])


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ('title = "Two cuts"\n', "", "one.toml: title: required, and not set"),
        ("[fleet]", "[fleet", "one.toml, line 4, column 7: not valid TOML"),
        ("[fleet]", "[flete]", "one.toml, line 4: flete: no such setting"),
        ("devices = 12", "devices = 0", "one.toml, line 5: fleet.devices: 0 is below the minimum 1"),
        ("devices = 12", 'profile = "rocket"', "one.toml, line 4: fleet: no profile 'rocket'; one of pump"),
        ('"90s"', '"0s"', "one.toml, line 2: duration: is not within 1 s and 24 hours"),
        ('"90s"', '"3d"', "one.toml, line 2: duration: '3d': is above the maximum, 1 days"),
        ('what = "cut"', 'what = "cat"', "one.toml, line 8: event[0].what: 'cat': invalid value 'cat'"),
        ('what = "cut"\n', "", "event[0].what: required, and not set"),
        ('for = "5s"', "for = 5", "one.toml, line 10: event[0].for: 5: is not a time with its unit in quotes"),
        ('for = "5s"', 'for = "-5s"', "one.toml, line 10: event[0].for: '-5s': is not a time"),
        ('for = "5s"', 'share = 0.5\nfor = "5s"', "one.toml, line 10: event[0].share: no such setting"),
        ("0.25", "1.5", "one.toml, line 19: event[1].share: 1.5 is above the maximum 1.0"),
        ('every = "5s"', 'every = "2s"', "one.toml, line 16: event[1].every: 2 s is over before for and jitter are"),
        ('every = "5s"\n', "", "one.toml, line 16: event[1].times: it happens more than once"),
        ("times = 3", "times = 30", "one.toml, line 14: event[1].at: it ends at 157.5 s at the latest, after the sc"),
        (
            'for = "5s"',
            'for = "5s"\n[[event]]\nwhat = "stall"\nat = "7s"\nfor = "2s"',
            "one.toml, line 13: event[1].at: may begin at 7 s, and event[0] lasts until 8 s; the link has one fault",
        ),
        (
            'what = "cut"\nat = "3s"',
            'what = "wrong-clock"\nat = "3s"',
            "one.toml, line 7: event[0]: the clock is not wrong",
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_line_field_and_limit(
    tmp_path: Path, there: str, instead: str, said: str
) -> None:
    assert there in TEXT
    with pytest.raises(ConfigError) as caught:
        read(scenario(tmp_path, TEXT.replace(there, instead, 1)))
    assert said in caught.value.message


def test_a_kind_that_is_none_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(scenario(tmp_path, TEXT.replace('"cut"', '"cat"')))
    assert caught.value.remedy == f"one of {', '.join(KINDS)}"


def test_what_is_no_scenario_is_said_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read(tmp_path / "binary")
    with pytest.raises(UserError, match="no scenario 'nowhere'") as caught:
        timeline.find("nowhere")
    assert "flaky-cellular" in caught.value.remedy


def test_the_named_ones_are_right_short_and_play_every_kind_between_them() -> None:
    played = {file.stem: read(file) for file in shipped()}
    assert {"flaky-cellular", "night-outage", "power-cut", "bad-clock"} <= played.keys()
    assert all(one.duration <= 180 for one in played.values())
    assert played["flaky-cellular"].duration == 90
    kinds = {event.__struct_config__.tag for one in played.values() for event in one.event}
    assert kinds == set(KINDS)


def test_the_file_in_the_docs_is_a_scenario_and_every_kind_and_setting_stands_there(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "SCENARIOS.md").read_text()
    (block,) = re.findall(r"^    title = .*\n(?:(?:    .*)?\n)*?(?=    \.venv)", text, re.MULTILINE)
    played = read(scenario(tmp_path, re.sub(r"^    ", "", block, flags=re.MULTILINE)))
    assert len(moments(played, devices=played.fleet.devices, seed=1)) == 4
    for kind in KINDS:
        assert f"| `{kind}` |" in text
    for setting in settings(timeline.Scenario, env_prefix=""):
        name = setting.path.removeprefix("event[].")
        assert f"`{name}`" in text or name == "event", name
