"""What devices are answered."""

from __future__ import annotations

import pytest

from edge.listeners.answers import Answer


def test_an_answer_is_text_or_bytes_with_a_count_in_it() -> None:
    assert Answer("OK {count}\n", ("count",)).counted(4, 2) == b"OK 4\nOK 5\n"
    assert Answer("hex:06 0d", ("count",)).counted(4, 2) == b"\x06\x0d\x06\x0d"
    assert Answer("{count}").counted(4, 2) == b"{count}{count}"
    assert Answer("NO {code}!", ("code",)).filled("code", "oversize") == b"NO oversize!"
    assert not Answer("")
    assert Answer("hex:00")
    with pytest.raises(ValueError, match="no bytes in hex"):
        Answer("hex:0")
