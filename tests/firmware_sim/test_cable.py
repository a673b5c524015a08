"""The demo's serial cable: real pseudo-terminals, used as a gateway and a shell use them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firmware_sim.demo.cable import SerialCable

ANSWER_S = 10.0


@contextmanager
def opened(port: Path) -> Iterator[int]:
    line = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        yield line
    finally:
        os.close(line)


async def read(line: int, end: bytes, *, at_once: int = 65_536) -> bytes:
    """Until `end` came."""
    loop = asyncio.get_running_loop()
    data, came = b"", asyncio.Event()
    loop.add_reader(line, came.set)
    try:
        async with asyncio.timeout(ANSWER_S):
            while not data.endswith(end):
                await came.wait()
                came.clear()
                data += os.read(line, at_once)
    finally:
        loop.remove_reader(line)
    return data


async def shell(command: str) -> None:
    process = await asyncio.create_subprocess_shell(command)
    async with asyncio.timeout(ANSWER_S):
        assert await process.wait() == 0


@pytest.fixture
async def ports(tmp_path: Path) -> AsyncIterator[tuple[Path, Path]]:
    ends = tmp_path / "serial" / "gateway", tmp_path / "serial" / "bench"
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    cable = SerialCable(*ends)
    cable.open()
    yield ends
    cable.close()
    assert not ends[0].parent.exists()
    assert not errors


async def test_what_a_shell_writes_comes_as_it_is_whoever_opens_and_closes_the_ends(ports: tuple[Path, Path]) -> None:
    gateway, bench = ports
    for _ in range(2):
        with opened(gateway) as line:
            await shell(f"printf '\\021\\003\\r{{}}\\n' > {bench}")
            assert await read(line, b"\n") == b"\x11\x03\r{}\n"
            os.write(line, b"OK 1\n")
            with opened(bench) as other:
                assert await read(other, b"\n") == b"OK 1\n"


async def test_more_than_a_port_holds_comes_whole_however_slowly_it_is_read(
    ports: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware_sim.demo.cable.PATIENCE_S", ANSWER_S)
    gateway, bench = ports
    with opened(gateway) as line:
        writing = asyncio.create_task(shell(f"seq 30000 > {bench}"))
        assert await read(line, b"\n30000\n", at_once=16) == b"".join(b"%d\n" % number for number in range(1, 30_001))
        await writing


async def test_nobody_hangs_because_nobody_reads(ports: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware_sim.demo.cable.PATIENCE_S", 0.01)
    gateway, bench = ports
    await shell(f"seq 30000 > {bench}")
    with opened(gateway) as line:
        await shell(f"echo last > {bench}")
        assert (await read(line, b"last\n")).endswith(b"last\n")


async def test_what_an_earlier_start_left_behind_is_replaced(tmp_path: Path) -> None:
    gateway, bench = tmp_path / "gateway", tmp_path / "bench"
    bench.write_text("by a shell, as there was no port\n")
    gateway.symlink_to("/dev/pts/nowhere")
    cable = SerialCable(gateway, bench)
    cable.open()
    with opened(gateway) as line:
        await shell(f"echo new > {bench}")
        assert await read(line, b"\n") == b"new\n"
    cable.close()
