"""Frames that end with bytes which stand in no frame: what line, COBS and SLIP share."""

from __future__ import annotations

from abc import abstractmethod

from protocols.framing.base import Decoder


class DelimitedDecoder(Decoder):
    """Splits whole reads. After a frame that is too long it goes on behind the next delimiter."""

    def __init__(self, delimiter: bytes, frame_bytes_max: int, raw_bytes_max: int) -> None:
        """`raw_bytes_max`: the largest frame as it is on the line, without its delimiter."""
        super().__init__(frame_bytes_max)
        self._delimiter = delimiter
        self._raw_bytes_max = raw_bytes_max
        self._is_skipping = False

    def receive(self, data: bytes) -> list[bytes]:
        buffer, delimiter = self._buffer, self._delimiter
        if buffer:
            seen = len(buffer)
            buffer += data
            if buffer.find(delimiter, max(0, seen - len(delimiter) + 1)) < 0:
                self._bound()
                return []
            parts = bytes(buffer).split(delimiter)
            buffer.clear()
        else:
            parts = data.split(delimiter)
        buffer += parts.pop()
        if self._is_skipping and parts:
            self._is_skipping = False
            del parts[0]
        if buffer:
            self._bound()
        if parts and len(max(parts, key=len)) > self._raw_bytes_max:
            parts = self._short(parts)
        return self._open(parts)

    def end(self) -> None:
        if self._is_skipping:
            self._is_skipping = False
            self._buffer.clear()
        super().end()

    @abstractmethod
    def _open(self, parts: list[bytes]) -> list[bytes]:
        """Payloads of what stood between delimiters, of which some may be empty."""

    def _bound(self) -> None:
        """Gives up what is longer than a frame; a delimiter may have begun in its last bytes."""
        buffer, begun = self._buffer, len(self._delimiter) - 1
        if not self._is_skipping and len(buffer) > self._raw_bytes_max + begun:
            self._is_skipping = True
            self._reject_long(buffer)
        if self._is_skipping:
            del buffer[: len(buffer) - begun]

    def _short(self, parts: list[bytes]) -> list[bytes]:
        for part in parts:
            if len(part) > self._raw_bytes_max:
                self._reject_long(part)
        return [part for part in parts if len(part) <= self._raw_bytes_max]
