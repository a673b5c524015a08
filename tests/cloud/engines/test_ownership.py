"""Locks of the kernel belong to open files, so several users in one process stand for several processes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloud.engines.ownership import Ownership


def test_the_first_owns_and_the_second_uses(tmp_path: Path) -> None:
    first, second = Ownership(tmp_path), Ownership(tmp_path)
    assert first.join()
    assert first.own()
    assert second.join()
    assert not second.own()
    first.close()
    second.close()


def test_an_owner_that_leaves_hands_over_and_the_last_one_is_told_to_stop_the_engine(tmp_path: Path) -> None:
    first, second = Ownership(tmp_path), Ownership(tmp_path)
    assert first.join()
    assert first.own()
    assert second.join()
    assert not first.leave()
    first.close()
    assert second.own()
    assert second.leave()
    second.close()


def test_nobody_joins_while_the_engine_is_being_stopped(tmp_path: Path) -> None:
    last, newcomer = Ownership(tmp_path), Ownership(tmp_path)
    assert last.join()
    assert last.own()
    assert last.leave()
    assert not newcomer.join()
    last.close()
    assert newcomer.join()
    assert newcomer.own()
    newcomer.close()


class Users(RuleBasedStateMachine):
    """Any order of coming, owning, leaving and being killed."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.users: list[Ownership] = []

    def teardown(self) -> None:
        for user in self.users:
            user.close()
        self.directory.cleanup()

    @rule()
    def come(self) -> None:
        user = Ownership(Path(self.directory.name))
        assert user.join()
        self.users.append(user)

    @rule(which=st.integers(0, 7))
    def own(self, which: int) -> None:
        if self.users:
            self.users[which % len(self.users)].own()

    @rule(which=st.integers(0, 7))
    def leave(self, which: int) -> None:
        if self.users:
            user = self.users.pop(which % len(self.users))
            another_owns = any(other.owned for other in self.users)
            stops = user.leave()
            assert stops == (not self.users), "the last one stops the engine, and only the last one"
            assert not (stops and another_owns)
            user.close()

    @rule(which=st.integers(0, 7))
    def be_killed(self, which: int) -> None:
        if self.users:
            self.users.pop(which % len(self.users)).close()

    @invariant()
    def at_most_one_owns(self) -> None:
        assert sum(user.owned for user in self.users) <= 1


TestUsers = Users.TestCase
TestUsers.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
