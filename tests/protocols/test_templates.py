"""Topics and paths that name their devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.mqtt.topics import matches
from protocols.templates import NOBODY, Name, Template, TemplateError, Templates

levels = st.text(st.characters(codec="utf-8", exclude_characters="/+#{}\0$"), max_size=8)
topics = st.lists(levels, min_size=1, max_size=5).map("/".join).filter(bool)


@pytest.mark.parametrize(
    ("template", "topic", "name"),
    [
        ("sensors/{serial}/up", "sensors/7/up", Name("serial", "7")),
        ("sensors/{serial}/up", "sensors/7/up/more", None),
        ("sensors/{serial}/up", "sensors//up", None),
        ("sensors/{serial}/up", "other/7/up", None),
        ("{esn}", "5551212", Name("esn", "5551212")),
        ("dev-{serial}.v1/#", "dev-7.v1/a/b", Name("serial", "7")),
        ("dev-{serial}.v1/#", "dev-7.v1", Name("serial", "7")),
        ("dev-{serial}.v1/#", "dev-7xv1", None),
        ("+/{serial}/#", "a/7", Name("serial", "7")),
        ("+/{serial}", "$SYS/7", None),
        ("{serial}/x", "$SYS/x", None),
        ("$share/{serial}", "$share/7", Name("serial", "7")),
        ("#", "a/b", NOBODY),
        ("#", "$SYS/b", None),
        ("up", "up", NOBODY),
        ("a/+/c", "a//c", NOBODY),
        ("a/{serial}", "a/" + 128 * "x", Name("serial", 128 * "x")),
        ("a/{serial}", "a/" + 129 * "x", None),
        ("a/{serial}", "a/7\nb", Name("serial", "7\nb")),
    ],
)
def test_what_fits_names_the_device(template: str, topic: str, name: Name | None) -> None:
    assert Template(template).match(topic) == name


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "1 to 512 bytes"),
        ("a/#/b", "must be the last level"),
        ("a+/b", "whole level"),
        ("a/b#", "whole level"),
        ("{a}/{b}", "one {key}"),
        ("{a}{b}", "one {key}"),
        ("{}", "one {key}"),
        ("{a", "one {key}"),
        ("a}", "one {key}"),
        ("+{a}", "whole level"),
        ("x" * 513, "1 to 512 bytes"),
    ],
)
def test_a_template_that_makes_no_sense_says_why(template: str, reason: str) -> None:
    with pytest.raises(TemplateError) as error:
        Template(template)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("template", "topic"), [("ID {serial}", "ID a\0b"), ("+/{serial}", "a\0b/7"), ("{serial}/#", "7/a\0b")]
)
def test_what_no_database_text_can_hold_is_of_no_template(template: str, topic: str) -> None:
    assert Template(template).match(topic) is None


def test_the_first_that_fits_counts() -> None:
    several = Templates(["a/{serial}", "a/{esn}", "#"])
    assert [several.match(topic) for topic in ("a/1", "b", "$x")] == [Name("serial", "1"), NOBODY, None]


def test_a_commands_topic_is_of_one_device() -> None:
    assert Template("sensors/{serial}/down").fill("7") == "sensors/7/down"
    for template, alias in (("sensors/{serial}", "7/x"), ("sensors/{serial}", "+"), ("sensors/{serial}/+", "7")):
        with pytest.raises(TemplateError):
            Template(template).fill(alias)


@given(st.lists(levels | st.just("+"), min_size=1, max_size=4), st.booleans(), topics)
def test_wildcards_mean_what_they_mean_in_mqtt(parts: list[str], is_open: bool, topic: str) -> None:
    text = "/".join([*parts, "#"] if is_open else parts)
    if text:
        assert (Template(text).match(topic) is not None) == matches(text, topic)


@given(topics, levels.filter(bool), topics)
def test_what_is_filled_in_is_found_again(before: str, alias: str, after: str) -> None:
    template = Template(f"{before}/{{serial}}/{after}")
    topic = template.fill(alias)
    assert template.match(topic) == Name("serial", alias)
    assert matches(template.topic_filter, topic)
