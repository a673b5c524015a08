"""Bodies that come in blocks (Block1, RFC 7959, section 2.5), put together."""

from __future__ import annotations

from collections.abc import Hashable

from edge.listeners.coap import answers
from edge.listeners.coap.answers import Answer
from edge.listeners.coap.limits import UPLOAD_S, UPLOADS_BYTES_MAX, UPLOADS_MAX, UPLOADS_PER_SOURCE_MAX
from edge.listeners.coap.sources import Source
from protocols.coap.message import Block
from protocols.limits import PAYLOAD_BYTES_MAX


class _Upload:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.data = bytearray()
        self.at_s = 0.0


class Uploads:
    def __init__(self) -> None:
        self._uploads: dict[Hashable, _Upload] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._uploads)

    def add(
        self, key: Hashable, source: Source, block: Block, part: bytes, size: int | None, now_s: float
    ) -> bytes | Answer:
        """The whole body with its last block; before, or where something is wrong, the answer. `key`: who sends what
        to where; `size`: of the whole body, as its sender says."""
        if size is not None and size > PAYLOAD_BYTES_MAX:
            self._end(key)
            return answers.too_large()
        if len(part) > block.size or (block.more and len(part) != block.size):
            self._end(key)
            return answers.malformed(f"{len(part)} bytes in a block of {block.size}")
        if block.number == 0:
            self._end(key)  # begun anew
            if not block.more:
                return part
            problem = self._begin(key, source, now_s)
            if problem is not None:
                return problem
        upload = self._uploads.get(key)
        if upload is None or block.start != len(upload.data):
            return answers.INCOMPLETE
        if len(upload.data) + len(part) > PAYLOAD_BYTES_MAX:
            self._end(key)
            return answers.too_large()
        if self._bytes + len(part) > UPLOADS_BYTES_MAX:
            self._end(key)
            return answers.unavailable("uploads_full", "as much is coming in blocks as there is room for")
        upload.data += part
        upload.at_s = now_s
        self._bytes += len(part)
        if block.more:
            return answers.continued(block)
        body = bytes(upload.data)
        self._end(key)
        return body

    def forget(self, now_s: float) -> None:
        """Those that their senders have given up."""
        for key in [key for key, upload in self._uploads.items() if now_s - upload.at_s > UPLOAD_S]:
            self._end(key)

    def _begin(self, key: Hashable, source: Source, now_s: float) -> Answer | None:
        if len(self._uploads) >= UPLOADS_MAX:
            self.forget(now_s)
        if len(self._uploads) >= UPLOADS_MAX or source.uploads >= UPLOADS_PER_SOURCE_MAX:
            return answers.unavailable("uploads_full", "as many bodies are coming in blocks as there may be")
        self._uploads[key] = _Upload(source)
        source.uploads += 1
        return None

    def _end(self, key: Hashable) -> None:
        upload = self._uploads.pop(key, None)
        if upload is not None:
            upload.source.uploads -= 1
            self._bytes -= len(upload.data)
