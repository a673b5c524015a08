"""States of a command: forward only, whatever comes in whatever order, and however often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud.model.command import Standing, answered, reported
from protocols.messages import CommandState

ORDER = [
    CommandState.PENDING,
    CommandState.SENT,
    CommandState.EXPIRED,
    CommandState.FAILED,
    CommandState.DELIVERED,
]
"""Of what is reported, by how much it says."""

Word = tuple[CommandState, str, int] | tuple[str | None, int]
reports = st.tuples(st.sampled_from(CommandState), st.sampled_from(["", "too large"]), st.integers(0, 9))
answers = st.tuples(st.none() | st.just("the valve is stuck"), st.integers(0, 9))


def hear(standing: Standing, word: Word) -> Standing:
    return reported(standing, *word) if len(word) == 3 else answered(standing, *word)


def rank(standing: Standing) -> int:
    return len(ORDER) if standing.answered else ORDER.index(standing.state)


@given(st.lists(reports | answers, max_size=12))
def test_a_state_never_goes_back(words: list[Word]) -> None:
    standing = Standing()
    for word in words:
        after = hear(standing, word)
        assert rank(after) > rank(standing) or after == standing
        standing = after


@given(st.lists(reports | answers, max_size=8), st.data())
def test_what_is_told_again_changes_nothing(words: list[Word], data: st.DataObject) -> None:
    standing = Standing()
    for place, word in enumerate(words):
        standing = hear(standing, word)
        again = words[data.draw(st.integers(0, place))]
        assert hear(standing, again) == standing


@given(st.lists(reports, max_size=6), st.data())
def test_the_order_of_reports_does_not_matter(words: list[Word], data: st.DataObject) -> None:
    """But for the words that say a state first."""
    one, other = Standing(), Standing()
    for word in words:
        one = hear(one, word)
    for word in data.draw(st.permutations(words)):
        other = hear(other, word)
    assert one.state is other.state


@given(st.lists(reports, max_size=6), answers, st.lists(reports | answers, max_size=6))
def test_the_first_answer_is_the_last_word(before: list[Word], answer: Word, after: list[Word]) -> None:
    standing = Standing()
    for word in (*before, answer, *after):
        standing = hear(standing, word)
    refusal, time = answer
    state = CommandState.ACKNOWLEDGED if refusal is None else CommandState.FAILED
    assert standing == Standing(state, refusal or "", time, answered=True)


def test_what_only_the_device_can_say_is_not_taken_from_a_gateway() -> None:
    assert reported(Standing(), CommandState.ACKNOWLEDGED, "", 1).state is CommandState.DELIVERED
