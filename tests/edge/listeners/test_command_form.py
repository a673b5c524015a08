"""Frames that carry commands and their answers, beside messages."""

from __future__ import annotations

import pytest

from edge.listeners.command_form import framed, is_answer
from protocols.messages import Command

ID = "0190f0f0-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("frame", "answers"),
    [
        (f'{{"response":"{ID}","ok":true}}', True),
        (f'{{"response": "{ID.upper()}"}}', True),
        ('{"response":"fast"}', False),
        ('{"response":7}', False),
        (f'[{{"response":"{ID}"}}]', False),
        (f'{{"response":"{ID}"', False),
        (f'{{"response":"{ID}","ok":' + "[" * 100_000, False),
    ],
    ids=["answer", "capitals", "another-text", "number", "array", "cut-off", "deep"],
)
def test_an_answer_is_told_from_a_message_by_the_commands_id(frame: str, answers: bool) -> None:
    assert is_answer(frame.encode()) is answers


def test_a_payload_that_is_nested_too_deeply_is_text_in_its_commands_frame() -> None:
    payload = b"[" * 50_000
    assert framed(Command(ID, 1, "set", payload, 0), "json").endswith(b'"payload":"' + payload + b'"}')
