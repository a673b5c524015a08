"""Wrong passwords, counted."""

from __future__ import annotations

from cloud.api.attempts import PER_ADDRESS_MAX, PER_NAME_MAX, WINDOW_S, WINDOWS_MAX, Attempts


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_name_waits_for_the_rest_of_the_window_and_its_neighbours_do_not() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(PER_NAME_MAX):
        assert attempts.wait_s("10.0.0.1", "ann") == 0
        attempts.count_wrong("10.0.0.1", "ann")
        clock.now_s += 1
    assert attempts.wait_s("10.0.0.1", "ann") == WINDOW_S - PER_NAME_MAX
    assert attempts.wait_s("10.0.0.1", "bob") == 0
    assert attempts.wait_s("10.0.0.2", "ann") == 0
    clock.now_s += WINDOW_S
    assert attempts.wait_s("10.0.0.1", "ann") == 0


def test_an_address_cannot_go_through_a_list_of_names() -> None:
    attempts = Attempts(Clock())
    for number in range(PER_ADDRESS_MAX):
        assert attempts.wait_s("10.0.0.1", f"user-{number}") == 0
        attempts.count_wrong("10.0.0.1", f"user-{number}")
    assert attempts.wait_s("10.0.0.1", "somebody-else") > 0


def test_memory_is_bounded() -> None:
    attempts = Attempts(Clock())
    for number in range(WINDOWS_MAX):
        attempts.count_wrong(f"10.0.{number // 256}.{number % 256}", "ann")
    assert len(attempts._windows) == WINDOWS_MAX
