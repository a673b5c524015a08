"""Who gets what, held against the plain rule: each filter against each topic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocols.limits import MQTT_SUBSCRIPTIONS_MAX
from protocols.mqtt import exchange as limits
from protocols.mqtt.exchange import Exchange
from protocols.mqtt.outbox import Message
from protocols.mqtt.packets import Subscription
from protocols.mqtt.reasons import Reason
from protocols.mqtt.session import Session, SessionKey
from protocols.mqtt.topics import matches

levels = st.sampled_from(["a", "b", "", "$x"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.tuples(st.lists(st.sampled_from(["a", "b", "+", "", "$x"]), max_size=3), st.booleans()).map(
    lambda made: "/".join([*made[0], *(["#"] if made[1] else [])])
)


def session(name: str) -> Session:
    return Session(SessionKey("serial", name, "c"))


def here(_: Session) -> bool:
    return True


@given(st.lists(st.tuples(st.integers(0, 2), filters.filter(bool), st.booleans()), max_size=12), topics)
def test_the_tree_finds_what_matches(changes: list[tuple[int, str, bool]], topic: str) -> None:
    made, sessions = Exchange(), [session(str(number)) for number in range(3)]
    held: set[tuple[int, str]] = set()
    for number, name, is_kept in changes:
        made.subscribe(sessions[number], Subscription(name, 1))
        held.add((number, name))
        if not is_kept:
            made.unsubscribe(sessions[number], name)
            held.discard((number, name))
    found = {sessions.index(each) for each, _ in made.receivers(topic, None, here)}
    assert found == {number for number, name in held if matches(name, topic)}
    for number, name in held:
        made.unsubscribe(sessions[number], name)
    assert made._root.is_empty(), "what nobody wants any more takes no memory"


@given(st.integers(1, 5), st.integers(1, 20))
def test_a_group_shares_evenly(members: int, messages: int) -> None:
    made, sessions = Exchange(), [session(str(number)) for number in range(members)]
    for each in sessions:
        made.subscribe(each, Subscription("$share/g/a", 1))
    got = [made.receivers("a", None, here) for _ in range(messages)]
    assert all(len(each) == 1 for each in got)
    counts = [sum(each[0][0] is member for each in got) for member in sessions]
    assert max(counts) - min(counts) <= 1


def test_a_group_whose_members_are_all_away_has_one_of_them_wait() -> None:
    made, (one, two) = Exchange(), (session("1"), session("2"))
    for each in (one, two):
        made.subscribe(each, Subscription("$share/g/a", 1))
    assert len(made.receivers("a", None, lambda _: False)) == 1
    assert [each for each, _ in made.receivers("a", None, lambda each: each is two)] == [two]


def test_retained_messages_are_bounded() -> None:
    made = Exchange()
    for number in range(limits.RETAINED_MAX):
        assert made.retain(Message(f"t/{number}", b"x", retain=True))
    assert not made.retain(Message("one/more", b"x", retain=True))
    assert made.retain(Message("t/0", b"another", retain=True))
    assert made.retain(Message("t/1", b"", retain=True))
    assert made.retain(Message("one/more", b"x", retain=True))
    assert len(made.retained_for("#", 0)) == limits.RETAINED_MAX


def test_subscriptions_are_bounded_and_replacing_one_is_always_possible() -> None:
    one = session("1")
    for number in range(MQTT_SUBSCRIPTIONS_MAX):
        assert one.subscribe(Subscription(f"down/{number}"), talks=False) == (Reason.SUCCESS, True)
    assert one.subscribe(Subscription("down/one-more"), talks=False)[0] is Reason.QUOTA_EXCEEDED
    assert one.subscribe(Subscription("down/0", 1), talks=False) == (Reason.GRANTED_QOS_1, False)
