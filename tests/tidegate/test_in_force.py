"""What `config check` shows."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tidegate.in_force import rows


class Framing(msgspec.Struct):
    kind: Annotated[str, msgspec.Meta(description="Of frames.")] = "line"
    order: Annotated[str | None, msgspec.Meta(description="Of bytes.")] = None


class Listener(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(description="Its name.")]
    port: Annotated[int, msgspec.Meta(description="Its port.")] = 5000
    framing: Framing = msgspec.field(default_factory=Framing)


class Broker(msgspec.Struct):
    password: Annotated[str, msgspec.Meta(description="Its password.")]


class Config(msgspec.Struct):
    level: Annotated[str, msgspec.Meta(description="Of logs.")] = "info"
    tcp: Annotated[list[Listener], msgspec.Meta(description="Listeners.")] = []
    broker: Annotated[list[Broker], msgspec.Meta(description="Brokers.")] = []


def shown(config: Config) -> list[str]:
    return [f"{row['setting']} {row['value']}" for row in rows(config)]


def test_each_setting_of_a_listener_that_is_set_has_a_line() -> None:
    config = Config(tcp=[Listener("a"), Listener("b", port=5001, framing=Framing("cobs"))])
    assert shown(config) == [
        'level "info"', 'tcp[0].name "a"', 'tcp[1].name "b"', "tcp[1].port 5001", 'tcp[1].framing.kind "cobs"',
        "broker []",
    ]  # fmt: skip
    assert [row["what"] for row in rows(config)][-2] == "Of frames."


def test_a_list_that_is_empty_has_a_line() -> None:
    assert shown(Config()) == ['level "info"', "tcp []", "broker []"]


def test_passwords_within_lists_are_not_shown() -> None:
    assert "hush" not in str(shown(Config(broker=[Broker("hush")])))
