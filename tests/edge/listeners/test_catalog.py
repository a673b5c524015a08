"""Every kind of listener in the table can be configured and made."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import msgspec
import pytest

from edge.config import EdgeConfig
from edge.listeners.catalog import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_section_and_a_module_that_makes_it(kind: str) -> None:
    assert getattr(EdgeConfig(), kind) == ()
    made = inspect.signature(importlib.import_module(KINDS[kind]).make_listener)
    assert list(made.parameters) == ["config", "shared"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_what_it_needs_so_that_a_doctor_can_look_at_it(kind: str) -> None:
    (section,) = (field for field in msgspec.structs.fields(EdgeConfig) if field.name == kind)
    config = section.type.__origin__.__args__[0]
    assert "needs" in vars(config), f"{config.__name__} has a property `needs` (edge/listeners/config.py)"


def test_all_sections_of_listeners_are_in_the_table() -> None:
    sections = {name for name, kind in inspect.get_annotations(EdgeConfig).items() if "Config, ...]" in str(kind)}
    assert sections == set(KINDS)


def test_a_gateway_imports_no_protocol_that_it_does_not_speak() -> None:
    code = "import sys, edge.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "edge.app" in loaded
    assert set(loaded) & {*KINDS.values(), "aiocoap", "serial", "pymodbus", "paho", "aiomqtt", "cbor2"} == set()
