"""Commands on the gateway's disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.commands import ENDED_MAX, OPEN_BYTES_MAX, REMEMBERED_MS, CommandQueue
from protocols.messages import Command, CommandState

NOW = 1_770_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "commands.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[CommandQueue]:
    made = CommandQueue(path)
    yield made
    made.close()


def command(name: str, payload: bytes = b"on", deadline: int = NOW + 1000) -> Command:
    return Command(name, 1, "restart", payload, deadline)


def reread(path: Path) -> dict[str, tuple[str, str, int]]:
    queue = CommandQueue(path)
    queue.close()
    return {held.id: (held.state.value, held.kept, held.sends) for held in queue.held.values()}


async def test_what_came_is_there_after_a_kill(queue: CommandQueue, path: Path) -> None:
    """The other one reads what is on disk, while this one has not closed."""
    await queue.add([command("a"), command("b")], NOW)
    assert reread(path) == {"a": ("sent", "", 0), "b": ("sent", "", 0)}
    held = queue.held["a"]
    held.state, held.kept, held.sends = CommandState.DELIVERED, "sent", 2
    await queue.changed([held])
    assert reread(path) == {"a": ("delivered", "sent", 2), "b": ("sent", "", 0)}
    assert (await queue.payload("a"), await queue.payload("b")) == (b"", b"on")


async def test_a_command_that_comes_twice_is_there_once(queue: CommandQueue, path: Path) -> None:
    assert [held.id for held in await queue.add([command("a"), command("a")], NOW)] == ["a"]
    assert await queue.add([command("a", b"other")], NOW) == []
    assert await queue.payload("a") == b"on"


async def test_there_is_room_for_so_many_bytes(queue: CommandQueue) -> None:
    size = OPEN_BYTES_MAX // 2
    added = await queue.add([command(name, bytes(size)) for name in "abc"], NOW)
    assert [held.id for held in added] == ["a", "b"]
    added[0].state = CommandState.EXPIRED
    await queue.changed(added)
    assert [held.id for held in await queue.add([command("c", bytes(size))], NOW)] == ["c"]


async def test_what_has_ended_is_remembered_for_a_while(queue: CommandQueue, path: Path) -> None:
    for held in await queue.add([command("a"), command("b")], NOW):
        held.state = CommandState.DELIVERED
    queue.held["a"].kept = "delivered"
    await queue.changed(queue.held.values())
    await queue.add([command("c")], NOW + REMEMBERED_MS)
    assert set(reread(path)) == {"a", "b", "c"}
    await queue.add([command("d")], NOW + REMEMBERED_MS + 1001)
    assert set(queue.held) == set(reread(path)) == {"b", "c", "d"}, "what the cloud does not know is kept"


async def test_not_more_than_so_many_are_remembered(queue: CommandQueue) -> None:
    for place in range(2):
        helds = await queue.add([command(f"{place}-{n}", b"") for n in range(ENDED_MAX // 2 + 1)], NOW)
        for held in helds:
            held.state = CommandState.FAILED
        await queue.changed(helds)
    await queue.add([command("last")], NOW)
    assert len(queue.held) == ENDED_MAX + 1
    assert "0-1" not in queue.held


async def test_a_disk_that_takes_nothing_takes_no_command(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    queue = CommandQueue(folder / "commands.db")
    assert await queue.add([command("a")], NOW) == []
    folder.mkdir()
    (held,) = await queue.add([command("a")], NOW)
    assert (held.state, reread(folder / "commands.db")) == (CommandState.SENT, {"a": ("sent", "", 0)})
    queue.close()


async def test_a_damaged_file_is_dropped(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    queue = CommandQueue(path)
    assert queue.held == {}
    assert [held.id for held in await queue.add([command("a")], NOW)] == ["a"]
    queue.close()
    assert set(reread(path)) == {"a"}
