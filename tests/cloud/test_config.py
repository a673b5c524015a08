"""The cloud's configuration: what cannot work is said before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.config import ENV_PREFIX, JETSTREAM_BYTES_MIN, CloudConfig
from cloud.engines import EngineSettings
from cloud.topics import TOPICS
from tidegate.config import ConfigError, load


def loaded(tmp_path: Path, text: str) -> CloudConfig:
    file = tmp_path / "cloud.toml"
    file.write_text(text)
    return load(CloudConfig, file=file, env_prefix=ENV_PREFIX, environ={})


def test_everything_has_a_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, "")
    engines = EngineSettings(data_dir=config.data_dir)
    assert (config.database.url, config.nats.url) == (engines.database_url, engines.nats_url)
    assert (config.database.port, config.nats.port) == (engines.postgres_port, engines.nats_port)
    assert config.nats.jetstream_bytes_max == engines.jetstream_bytes_max
    assert config.engines.reach_within_s == engines.reach_within_s


def test_nats_may_keep_all_topics_when_full() -> None:
    assert sum(topic.bytes_max for topic in TOPICS) == JETSTREAM_BYTES_MIN <= CloudConfig().nats.jetstream_bytes_max


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@db/tidegate", "postgres://db", "postgresql://u:p@one:5432,two:5432/tidegate"]
)
def test_databases_that_may_be_named(tmp_path: Path, url: str) -> None:
    assert loaded(tmp_path, f"[database]\nurl = '{url}'").database.url == url


@pytest.mark.parametrize("url", ["nats://bus:4222", "tls://u:p@bus", "nats://one,nats://two"])
def test_buses_that_may_be_named(tmp_path: Path, url: str) -> None:
    assert loaded(tmp_path, f"[nats]\nurl = '{url}'").nats.url == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[http]\nport = 70000", "cloud.toml, line 2: http.port: 70000 is above the maximum 65535"),
        ("[http]\ntls_cert = 'c.pem'", "cloud.toml, line 1: http: tls_cert and tls_key go together"),
        ("[http]\npublic_url = 'cloud.example'", "line 1: http: public_url must begin with http:// or https://"),
        ("[database]\nurl = 'mysql://u:hush@db'", "line 1: database: url must begin with postgresql://"),
        ("[nats]\nurl = 'nats://one,two'", "line 1: nats: url must begin with nats:// or tls://, each of several"),
        ("[nats]\njetstream_bytes_max = 5", f"nats.jetstream_bytes_max: 5 is below the minimum {JETSTREAM_BYTES_MIN}"),
        ("[engines]\nreach_within_s = 0", "line 2: engines.reach_within_s: 0 is not above 0"),
        ("[engines]\nreach_within = 1", "line 2: engines.reach_within: no such setting"),
    ],
)
def test_what_cannot_work_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, text)
    assert message in error.value.message
    assert "hush" not in error.value.message
