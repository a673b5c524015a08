"""What a device is answered: bytes, the same each time or with a field in them, as a configuration writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

HEX: Final = "hex:"


class Answer:
    """`hex:06`, or text in which `{field}` stands for a value."""

    def __init__(self, text: str, fields: Sequence[str] = ()) -> None:
        """Raises ValueError."""
        self._template = ""
        self._fixed = b""
        if text.startswith(HEX):
            try:
                self._fixed = bytes.fromhex(text.removeprefix(HEX))
            except ValueError:
                raise ValueError(f"{text!r} is no bytes in hex") from None
        elif any(f"{{{field}}}" in text for field in fields):
            self._template = text
        else:
            self._fixed = text.encode()

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        return bool(self._template or self._fixed)

    def filled(self, field: str, value: object) -> bytes:
        if self._template:
            return self._template.replace(f"{{{field}}}", str(value)).encode()
        return self._fixed

    def counted(self, first: int, times: int) -> bytes:
        """So many of them, the field `count` rising from `first`."""
        if self._template:
            return b"".join(self.filled("count", count) for count in range(first, first + times))
        return self._fixed * times
