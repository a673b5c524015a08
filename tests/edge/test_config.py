"""The gateway's configuration: what does not fit together is said before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import ENV_PREFIX, EdgeConfig
from tests.edge.site import Site
from tidegate.config import ConfigError, load


def loaded(tmp_path: Path, text: str) -> EdgeConfig:
    file = tmp_path / "edge.toml"
    file.write_text(text)
    return load(EdgeConfig, file=file, env_prefix=ENV_PREFIX, environ={})


def test_a_file_is_what_is_in_force(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert load(EdgeConfig, file=site.write_config(), env_prefix=ENV_PREFIX, environ={}) == site.config


def test_everything_has_a_default(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").mqtt == ()


LISTENER = '[[mqtt]]\nname = "a"\nnetwork = "n"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[log]\nmax_bytes = 30000000", "edge.toml, line 1: log: max_bytes 30000000 is below the minimum 84410368"),
        ("[log]\nmax_bytes = 3", "edge.toml, line 2: log.max_bytes: 3 is below the minimum 21495808"),
        ('[link]\nurl = "https://cloud"', "edge.toml, line 1: link: url must begin with ws:// or wss://"),
        (LISTENER + 'tls_key = "k"', "edge.toml, line 1: mqtt[0]: tls_cert and tls_key go together"),
        (LISTENER + LISTENER, "edge.toml: two listeners are named 'a'"),
        (
            LISTENER + LISTENER.replace('"a"', '"b"'),
            "edge.toml: listener 'b' and listener 'a' both have tcp port 1883 on 0.0.0.0; give one of them another",
        ),
        (
            LISTENER + 'host = "127.0.0.1"\nport = 8081',
            "edge.toml: listener 'a' and the status page both have tcp port",
        ),
        ("[mqtt]\nname = 'a'\nnetwork = 'n'", "edge.toml, line 1: mqtt: there may be several of it"),
        ('[bus]\nendpoint = "tcp://0.0.0.0:7999"', "edge.toml, line 1: bus: endpoint tcp://0.0.0.0:7999: whoever"),
        (
            LISTENER + '[[mqtt.priorities]]\ntopics = ["alarm/#/x"]\npriority = "alarm"',
            "mqtt[0].priorities[0]: topics: 'alarm/#/x': # in a topic filter must be its whole last level",
        ),
        (LISTENER + "port = 70000", "edge.toml, line 4: mqtt[0].port: 70000 is above the maximum 65535"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, text)
    assert message in error.value.message


def test_one_table_where_there_may_be_several_is_told_how_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, LISTENER.replace("[[mqtt]]", "[mqtt]"))
    assert error.value.remedy == "write [[mqtt]]"


@pytest.mark.parametrize(
    "endpoint",
    ["", "ipc:///run/bus", "tcp://127.0.0.1:7999", "tcp://127.1.2.3:*", "tcp://[::1]:5", "tcp://localhost:5"],
)
def test_the_bus_may_be_on_this_machine(tmp_path: Path, endpoint: str) -> None:
    assert loaded(tmp_path, f'[bus]\nendpoint = "{endpoint}"').bus.endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://*:7999", "tcp://[::]:7999", "tcp://10.0.0.1:7999", "tcp://eth0:7999", "tcp://127.0.0.1.example:7999",
     "tcp://0.0.0.0:7999;127.0.0.1:1", "tcp://x@127.0.0.1:5", "tcp://127.0.0.1", "udp://127.0.0.1:5", "ipc://", "bus"],
)  # fmt: skip
def test_the_bus_is_nowhere_else(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, f'[bus]\nendpoint = "{endpoint}"')
    assert f"bus: endpoint {endpoint}: " in error.value.message
    assert "use ipc://PATH, or tcp://127.0.0.1:PORT" in error.value.message
