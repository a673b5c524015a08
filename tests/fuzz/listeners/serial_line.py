"""The device's end of a serial port."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator


class SerialLine:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._came = asyncio.StreamReader()

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, descriptor: int) -> AsyncIterator[SerialLine]:
        """`descriptor`: not blocking."""
        line, loop = cls(descriptor), asyncio.get_running_loop()
        loop.add_reader(descriptor, line._readable)
        try:
            yield line
        finally:
            loop.remove_reader(descriptor)

    async def write(self, data: bytes) -> None:
        """Returns when the line has taken it all."""
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(self._descriptor, writable.set)
                try:
                    await writable.wait()
                finally:
                    loop.remove_writer(self._descriptor)

    async def read(self, size: int) -> bytes:
        return await self._came.readexactly(size)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._came.feed_data(os.read(self._descriptor, 65_536))
