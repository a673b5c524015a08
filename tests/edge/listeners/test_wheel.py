from __future__ import annotations

from edge.listeners.wheel import DeadlineWheel


class Item:
    def __init__(self, *answers: int) -> None:
        self.checked_at: list[int] = []
        self._answers = list(answers)
        self.wheel: DeadlineWheel | None = None

    def check(self) -> int:
        if self.wheel is not None:
            self.checked_at.append(self.wheel.now)
        return self._answers.pop(0) if self._answers else 0


def turned(wheel: DeadlineWheel, ticks: int) -> None:
    for _ in range(ticks):
        wheel.turn()


def item(wheel: DeadlineWheel, *answers: int) -> Item:
    made = Item(*answers)
    made.wheel = wheel
    return made


def test_an_item_is_checked_when_due_and_again_when_it_asks() -> None:
    wheel = DeadlineWheel()
    one = item(wheel, 5)
    wheel.watch(one, 3)
    turned(wheel, 20)
    assert one.checked_at == [3, 8]


def test_watching_again_replaces_and_forgetting_ends() -> None:
    wheel = DeadlineWheel()
    moved, gone = item(wheel), item(wheel)
    wheel.watch(moved, 3)
    wheel.watch(gone, 3)
    wheel.watch(moved, 7)
    wheel.forget(gone)
    wheel.forget(gone)
    turned(wheel, 10)
    assert (moved.checked_at, gone.checked_at) == ([7], [])


def test_a_check_may_forget_others_of_the_same_tick() -> None:
    wheel = DeadlineWheel()
    checked: list[Only] = []

    class Only:
        def check(self) -> int:
            checked.append(self)
            for other in every:
                wheel.forget(other)
            return 0

    every = [Only() for _ in range(5)]
    for one in every:
        wheel.watch(one, 1)
    wheel.turn()
    wheel.turn()
    assert len(checked) == 1


def test_nothing_is_kept_of_what_is_forgotten() -> None:
    wheel = DeadlineWheel()
    for _ in range(100):
        gone = item(wheel)
        wheel.watch(gone, 100_000)
        wheel.forget(gone)
    assert not wheel._due
    assert not wheel._places
