"""Sections for TCP, UDP and serial ports: what does not fit together is said, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import ENV_PREFIX, EdgeConfig
from tidegate.config import ConfigError, load

NAMES = 'name = "a"\nnetwork = "n"\n'


def loaded(tmp_path: Path, text: str) -> EdgeConfig:
    file = tmp_path / "edge.toml"
    file.write_text(text)
    return load(EdgeConfig, file=file, env_prefix=ENV_PREFIX, environ={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[tcp]]\n" + NAMES, "tcp[0]: open: whoever reaches the port may speak"),
        ("[[udp]]\n" + NAMES, "udp[0]: open: whoever reaches the port may speak"),
        ("[[serial]]\n" + NAMES + 'port = "/dev/ttyS0"', "serial[0]: open: whoever is on the line may speak"),
        ("[[tcp]]\n" + NAMES + 'tls_client_ca = "ca"', "tls_client_ca: without tls_cert and tls_key there is no TLS"),
        ("[[tcp]]\n" + NAMES + 'open = true\ndevice = "7"', "device: '7' is no KEY:ALIAS"),
        ("[[tcp]]\n" + NAMES + 'open = true\nlogin = "ID"', "login: it names no device"),
        ("[[tcp]]\n" + NAMES + 'connect = "host"', "connect: 'host' is no HOST:PORT"),
        ("[[tcp]]\n" + NAMES + 'open = true\nack = "hex:0"', "ack: 'hex:0' is no bytes in hex"),
        ("[[udp]]\n" + NAMES + 'open = true\nframing = {kind = "fixed"}', "size: required where kind is fixed"),
        ("[[tcp]]\n" + NAMES + 'open = true\nframing = {kind = "lines"}', "framing.kind: 'lines'"),
        (
            "[[serial]]\n" + NAMES + 'open = true\nport = "usb:403:6001"',
            "port: 'usb:403:6001' is no usb:VID:PID with four hexadecimal digits each",
        ),
        (
            "[[serial]]\n" + NAMES + 'open = true\nport = "/dev/ttyS0"\npolls = [{send = "hex:q"}]',
            "serial[0].polls[0]: send: 'hex:q' is no bytes in hex",
        ),
        (
            "[[tcp]]\n" + NAMES + "open = true\n[[udp]]\n" + NAMES + "open = true",
            "two listeners are named 'a'",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, text)
    assert message in error.value.message


def test_all_sections_together(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        '[[tcp]]\nname = "t"\nnetwork = "n"\ntls_cert = "c"\ntls_key = "k"\ntls_client_ca = "ca"\n'
        '[[tcp]]\nname = "c"\nnetwork = "n"\nconnect = "[::1]:4001"\n'
        '[[udp]]\nname = "u"\nnetwork = "n"\nopen = true\n'
        '[[serial]]\nname = "s"\nnetwork = "n"\nopen = true\nport = "usb:0403:6001:A1"\n'
        'framing = {kind = "marked", start = "02", stop = "03", checksum = "CRC-16/MODBUS"}\n',
    )
    assert [(kind, listener.name) for kind, listener in config.listeners] == [
        ("tcp", "t"),
        ("tcp", "c"),
        ("udp", "u"),
        ("serial", "s"),
    ]
    assert config.tcp[1].peer == ("::1", 4001)
    assert [listener.files_max for _, listener in config.listeners] == [1000, 1, 1, 1]
