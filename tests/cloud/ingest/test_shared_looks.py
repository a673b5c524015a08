"""One look for many: nobody is told what was so before they asked."""

from __future__ import annotations

import asyncio

import pytest

from cloud.ingest.shared_looks import SharedLooks


async def test_who_asks_during_a_look_is_told_by_a_later_one_and_many_share_it() -> None:
    state = "allowed"
    looks: list[str] = []
    seen = asyncio.Event()
    go_on = asyncio.Event()

    async def look(asked: str) -> str:
        found = f"{asked} {state}"
        looks.append(found)
        seen.set()
        await go_on.wait()
        return found

    shared = SharedLooks(look)
    first = asyncio.create_task(shared.ask("a"))
    await seen.wait()
    state = "withdrawn"
    later = [asyncio.create_task(shared.ask("a")) for _ in range(50)]
    other = asyncio.create_task(shared.ask("b"))
    await asyncio.sleep(0)
    go_on.set()
    assert await first == "a allowed"
    assert set(await asyncio.gather(*later)) == {"a withdrawn"}
    assert await other == "b withdrawn"
    assert len(looks) == 3


async def test_an_error_is_told_to_all_and_forgotten() -> None:
    errors = [ValueError("ended"), None]

    async def look(asked: str) -> str:
        error = errors.pop(0)
        if error is not None:
            raise error
        return asked

    shared = SharedLooks(look)
    told = await asyncio.gather(shared.ask("a"), shared.ask("a"), return_exceptions=True)
    assert [str(each) for each in told] == ["ended", "ended"]
    assert await shared.ask("a") == "a"


async def test_a_client_that_goes_away_takes_nobody_with_it() -> None:
    go_on = asyncio.Event()

    async def look(asked: str) -> str:
        await go_on.wait()
        return asked

    shared = SharedLooks(look)
    gone, stays = asyncio.create_task(shared.ask("a")), asyncio.create_task(shared.ask("a"))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    go_on.set()
    assert await stays == "a"
