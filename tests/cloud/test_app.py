"""What keeps a cloud process from starting, and is told before it has made anything."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from cloud.app import SERVICES, run_cloud
from cloud.config import CloudConfig, DatabaseConfig, EnginesConfig, HttpConfig, NatsConfig
from tests.contract.nats_server import free_port
from tidegate.console import UserError


async def refusal(config: CloudConfig, services: Sequence[str] = SERVICES) -> UserError:
    """Why it does not start."""
    told: list[tuple[str, str]] = []
    with pytest.raises(UserError) as caught:
        async with asyncio.timeout(20):
            await run_cloud(config, services, asyncio.Event(), lambda *line: told.append(line), "")
    assert ("cloud", "ready") not in told
    return caught.value


@pytest.fixture
def config(tmp_path: Path) -> CloudConfig:
    """Of engines that are not there, and not waited for."""
    return CloudConfig(
        data_dir=tmp_path / "cloud",
        http=HttpConfig(port=0),
        database=DatabaseConfig(url=f"postgresql://tidegate:hush@127.0.0.1:{free_port()}/tidegate"),
        nats=NatsConfig(url=f"nats://127.0.0.1:{free_port()}"),
        engines=EnginesConfig(reach_within_s=0.3),
    )


async def test_services_that_do_not_exist(config: CloudConfig) -> None:
    error = await refusal(config, ["processor", "procesor", "typo"])
    assert error.message == "no service is called procesor, typo"
    assert error.remedy == "choose from api, receiver, processor, transponder, replay, curator"


async def test_a_port_that_is_taken(config: CloudConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = await refusal(msgspec.structs.replace(config, http=HttpConfig(port=port)))
    assert error.message == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "set http.port to a free one" in error.remedy
    assert not config.data_dir.exists()


async def test_a_certificate_that_is_none(config: CloudConfig, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("not a certificate")
    tls = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    error = await refusal(msgspec.structs.replace(config, http=HttpConfig(port=0, **tls)))
    assert error.message.startswith(f"cannot use http.tls_cert {tls['tls_cert']} with http.tls_key {tls['tls_key']}: ")
    assert "PEM" in error.remedy
    assert not config.data_dir.exists()


async def test_engines_that_cannot_be_reached_within_the_time_that_is_set(config: CloudConfig) -> None:
    error = await refusal(config, ["processor"])
    assert "cannot be reached: connection refused" in error.message
    assert "start it, correct " in error.remedy
    assert "hush" not in error.message + error.remedy
