"""A cloud's end of the link for whole gateways: takes every block, and sends what a test wants."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from edge.identity import load_key
from protocols.block import open_block
from protocols.events import PRESENCE
from protocols.messages import Record
from sync.link.tokens import Claims, verify
from tests.edge.site import registry
from tests.sync.link.platform import Cloud, serving


class SiteCloud(Cloud):
    """Knows the gateway of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self._data_dir = data_dir
        self.snapshot = registry()

    async def authenticate(self, token: str) -> Claims:
        key = load_key(self._data_dir)
        assert key is not None
        return verify(token, [key.public_key()], now_s=int(time.time()))

    @property
    def payloads(self) -> list[bytes]:
        """Of all records that devices sent, in the order of epochs and numbers."""
        return [record.payload for record in self.records if record.origin.codec != PRESENCE]

    @property
    def records(self) -> list[Record]:
        """All, in the order of epochs and numbers."""
        blocks = [block for _, block in sorted(self.stored.items())]
        return [record for block in blocks for batch in open_block(block)[1] for record in batch.records()]

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """The link's address."""
        async with serving(self.app) as port:
            yield f"ws://127.0.0.1:{port}/link/v1"
