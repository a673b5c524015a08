"""What the sections of all listeners have in common."""

from __future__ import annotations

import pytest

from edge.listeners.config import device_of, templates_of
from protocols.templates import NOBODY, Name


def test_a_device_is_named_by_key_and_alias() -> None:
    assert [device_of(text) for text in ("", "serial:7", "mac:a:b")] == [
        NOBODY,
        Name("serial", "7"),
        Name("mac", "a:b"),
    ]
    for text in ("7", ":7", "serial:", "serial:" + 129 * "x"):
        with pytest.raises(ValueError, match="KEY:ALIAS"):
            device_of(text)


def test_a_template_that_makes_no_sense_is_a_mistake_in_the_configuration() -> None:
    assert templates_of(("a/{serial}",)).match("a/7") == Name("serial", "7")
    with pytest.raises(ValueError, match="templates: 'a/#/b'"):
        templates_of(("a/#/b",))
