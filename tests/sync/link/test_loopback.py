"""Both ends over real sockets: the websockets client against uvicorn, and what goes wrong between them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols.messages import Command, CommandState, Lane
from sync.link.asgi import RejectedError
from sync.link.dial import WebSocketDial
from sync.link.errors import DialError
from sync.link.frames import CommandKept, CommandProgress, Goodbye, decode_frame
from sync.link.limits import Deadlines
from sync.link.ports import NotTakenError
from sync.link.status import LinkState
from sync.link.tokens import sign
from sync.registry import Device, RegistryChange, StaleReplicaError
from tests.sync.link.blocks import blocks, large_blocks
from tests.sync.link.platform import (
    Cloud,
    Gateway,
    Log,
    Relay,
    certificate,
    client,
    linking,
    serving,
    token,
    until,
    wall_ms,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]


async def drained(log: Log) -> None:
    async with asyncio.timeout(20):
        await log.empty.wait()


async def test_blocks_arrive_byte_for_byte_and_are_acknowledged() -> None:
    cloud, log = Cloud(), Log([*blocks(300), *blocks(20, 500, epoch=8)])
    log.lane = Lane.BACKFILL
    async with serving(cloud.app) as port, linking(client(port, log)) as link:
        await drained(log)
        assert sorted(cloud.stored.values()) == sorted(log.made)
        assert set(cloud.lanes) == {Lane.BACKFILL}
        assert (link.status.state, link.status.gateway_id) == (LinkState.UP, "quay-1")
        assert link.status.wire_bytes_sent < 0.8 * sum(map(len, log.made)), "small blocks travel together"
        await until(lambda: link.status.round_trip_ms is not None)
        session = cloud.sessions[0]
        assert session.hello is not None
        assert session.hello.software == "tidegate-edge 0.1.0"
        assert session.figures.blocks_accepted == 320
    assert link.status.state is LinkState.DOWN


async def test_registry_and_commands_come_down_and_answers_go_up() -> None:
    cloud, gateway = Cloud(), Gateway()
    async with serving(cloud.app) as port, linking(client(port, Log([]), downlink=gateway)) as link:
        async with asyncio.timeout(10):
            assert await gateway.changes.get() == cloud.snapshot
            change = RegistryChange("demo", 1, 2, devices=(Device(5, "s", "pump"),))
            cloud.pushed.put_nowait(change)
            assert await gateway.changes.get() == change
            command = Command("c1", 5, "restart", b"\x00\xff", wall_ms() + 1000)
            cloud.to_send.put_nowait(command)
            assert await gateway.commands.get() == command
            progress = CommandProgress("c1", CommandState.DELIVERED, "", wall_ms())
            assert link.report(progress)
            assert await cloud.progressed.get() == progress
            assert await gateway.kept.get() == CommandKept("c1", CommandState.DELIVERED)
            assert gateway.confirmed == [True]


async def test_a_replica_that_does_not_fit_gets_a_snapshot() -> None:
    cloud, gateway = Cloud(), Gateway()
    gateway.raises.append(StaleReplicaError("change starts at revision 7"))
    async with serving(cloud.app) as port, linking(client(port, Log([]), downlink=gateway, revision=5)):
        async with asyncio.timeout(10):
            cloud.pushed.put_nowait(RegistryChange("demo", 7, 8))
            assert await gateway.changes.get() == cloud.snapshot
            assert cloud.following == 1, "the feed that did not fit has ended"
    assert cloud.asked == [5, 0]


async def test_connections_cut_in_the_middle_of_a_frame_lose_and_repeat_nothing() -> None:
    cloud, log = Cloud(), Log(blocks(60, 500))
    async with serving(cloud.app) as port:
        relay = Relay(port)
        relay.cut_after = [700, 5_000, 60_000, 150_000]
        async with relay.listening() as relay_port, linking(client(relay_port, log)):
            await drained(log)
    assert sorted(cloud.stored.values()) == sorted(log.made)
    assert relay.connections == 5


async def test_a_cloud_that_goes_silent_is_left_and_found_again() -> None:
    cloud, log = Cloud(), Log(blocks(5, 10))
    async with serving(cloud.app) as port:
        relay = Relay(port)
        async with relay.listening() as relay_port, linking(client(relay_port, log)) as link:
            await drained(log)
            relay.silent = True
            await until(lambda: link.status.state is LinkState.DOWN)
            assert "no answer to a probe within 1 s" in link.status.reason
            relay.silent = False
            await until(lambda: link.status.state is LinkState.UP)


async def test_a_cloud_that_does_not_read_any_more_is_left() -> None:
    cloud, log = Cloud(), Log(large_blocks(10))

    async with serving(cloud.app) as port:
        relay = Relay(port)

        async def go_deaf_at_the_fourth(arrived: list[bytes]) -> None:
            relay.deaf = len(cloud.stored) == 3

        cloud.before = go_deaf_at_the_fourth
        async with relay.listening() as relay_port, linking(client(relay_port, log)) as link:
            await until(lambda: link.status.state is LinkState.DOWN)
            assert any(what in link.status.reason for what in ("answer after 1 s", "answer to a probe within 1 s"))
            relay.deaf = False
            await drained(log)
    assert sorted(cloud.stored.values()) == sorted(log.made)


async def test_one_lost_answer_stalls_nothing() -> None:
    cloud, log = Cloud(), Log(blocks(40, 500))
    hung: list[bytes] = []

    async def hang_on_the_first(arrived: list[bytes]) -> None:
        if not hung:
            hung.extend(arrived)
            await asyncio.Event().wait()

    cloud.before = hang_on_the_first
    async with serving(cloud.app) as port, linking(client(port, log)) as link:
        await until(lambda: bool(hung) and len(log.waiting) == len(hung))
        assert link.status.connections == 1, "the rest is accepted while one answer is out"
        await drained(log)
        assert link.status.connections == 2
    assert sorted(cloud.stored.values()) == sorted(log.made)


async def test_a_damaged_block_is_refused_alone_and_sent_again() -> None:
    cloud, log = Cloud(), Log(blocks(10, 20))
    damaged = log.made[3][:-1] + bytes((log.made[3][-1] ^ 1,))
    log.spoil = lambda block: damaged if block is log.made[3] and log.returns == 1 else block
    async with serving(cloud.app) as port, linking(client(port, log)) as link:
        await drained(log)
        assert link.status.connections == 1
        assert link.status.blocks_refused == 1
    assert cloud.arrivals == 10, "its neighbours were not sent twice"
    assert cloud.sessions[0].figures.blocks_refused == 1
    assert sorted(cloud.stored.values()) == sorted(log.made)


async def test_a_resend_waits_for_the_answers_that_are_still_out() -> None:
    cloud, log = Cloud(), Log(blocks(600))
    damaged = log.made[0][:-1] + bytes((log.made[0][-1] ^ 1,))
    log.spoil = lambda block: damaged if block is log.made[0] and log.returns == 1 else block

    async def take_time(arrived: list[bytes]) -> None:
        await asyncio.sleep(0.1 if len(arrived) > 500 else 0.6)

    cloud.before = take_time
    async with serving(cloud.app) as port, linking(client(port, log)) as link:
        await drained(log)
        assert (link.status.connections, link.status.blocks_refused) == (1, 1)
    assert cloud.arrivals == 600, "nothing was sent twice"


async def test_what_the_intake_does_not_take_now_is_sent_again_later() -> None:
    cloud, log = Cloud(), Log(blocks(10, 20))
    times: list[int] = []

    async def busy(arrived: list[bytes]) -> None:
        times.append(len(arrived))
        if len(times) < 3:
            raise NotTakenError("busy", "JetStream is full")

    cloud.before = busy
    async with serving(cloud.app) as port, linking(client(port, log)) as link:
        await drained(log)
        assert link.status.connections == 1
    assert times == [10, 10, 10]


async def test_a_defect_in_the_cloud_is_told_and_the_gateway_comes_back() -> None:
    cloud, log = Cloud(), Log(blocks(3))
    failed: list[int] = []

    async def fail_once(arrived: list[bytes]) -> None:
        if not failed:
            failed.append(1)
            raise ZeroDivisionError

    cloud.before = fail_once
    reasons: list[str] = []
    async with serving(cloud.app) as port, linking(client(port, log)) as link:
        await until(lambda: link.status.state is LinkState.DOWN)
        reasons.append(link.status.reason)
        await drained(log)
    assert "internal" in reasons[0]
    assert cloud.sessions[0].figures.reason == "internal"


async def test_an_expired_token_is_said_to_be_expired_and_retried() -> None:
    cloud, log = Cloud(), Log(blocks(3))
    made: list[int] = []

    def expired_at_first(now_s: int) -> str:
        made.append(now_s)
        return token(now_s - 3600 if len(made) < 3 else now_s)

    async with serving(cloud.app) as port, linking(client(port, log, token=expired_at_first)) as link:
        await until(lambda: link.status.state is LinkState.DOWN)
        assert "401" in link.status.reason
        assert "token-expired" in link.status.reason
        await drained(log)
        assert link.status.failures == 0
    assert len(cloud.sessions) == 1


async def test_a_gateway_with_a_wrong_clock_learns_the_time_from_the_refusal() -> None:
    cloud, log = Cloud(), Log(blocks(3))
    async with serving(cloud.app) as port:
        link = client(port, log, wall_ms=lambda: wall_ms() - 86_400_000 * 365)
        async with linking(link):
            await drained(log)
            assert abs(link.status.cloud_ahead_ms - 86_400_000 * 365) < 5000


async def test_a_wrong_key_and_a_missing_token_are_named() -> None:
    cloud = Cloud()
    stranger = Ed25519PrivateKey.generate()
    async with serving(cloud.app) as port:
        link = client(port, Log([]), token=lambda now_s: sign(stranger, gateway_id="q", project_id="p", now_s=now_s))
        async with linking(link):
            await until(lambda: link.status.state is LinkState.DOWN)
            assert "token-wrong-key" in link.status.reason
        async with linking(client(port, Log([]), token=lambda now_s: "")) as link:
            await until(lambda: link.status.state is LinkState.DOWN)
            assert "token-missing" in link.status.reason


async def test_retry_after_is_honoured() -> None:
    cloud, log = Cloud(), Log(blocks(1))
    cloud.rejects.append(RejectedError(503, "starting", "the cloud starts", retry_after_s=1.0))
    async with serving(cloud.app) as port, linking(client(port, log)) as link:
        await until(lambda: link.status.state is LinkState.DOWN)
        assert "503 starting: the cloud starts" in link.status.reason
        refused_s = time.monotonic()
        assert link.status.retry_at_ms > wall_ms() + 900
        await drained(log)
        assert time.monotonic() - refused_s > 0.9


async def test_a_session_that_is_ended_answers_what_it_has_and_names_the_reason() -> None:
    cloud, log = Cloud(), Log(blocks(1))
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait(arrived: list[bytes]) -> None:
        entered.set()
        await go_on.wait()

    cloud.before = wait
    async with serving(cloud.app) as port, linking(client(port, log)) as link:
        await entered.wait()
        cloud.sessions[0].end("restart", "the cloud restarts", 60.0)
        await asyncio.sleep(0)
        go_on.set()
        await drained(log)
        await until(lambda: link.status.state is LinkState.DOWN)
        assert "the cloud restarts" in link.status.reason
        assert link.status.retry_at_ms > wall_ms() + 50_000
        assert not link.report(CommandProgress("c1", CommandState.FAILED, "", 0))


@pytest.mark.parametrize(("stable_s", "failures"), [(30.0, [1, 2, 3]), (0.0, [1, 1, 1])])
async def test_only_a_connection_that_stood_for_a_while_starts_the_backoff_anew(
    stable_s: float, failures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.link.client.STABLE_S", stable_s)
    cloud, seen = Cloud(), []
    async with serving(cloud.app) as port, linking(client(port, Log([]))) as link:
        for number in range(3):
            await until(lambda: link.status.state is LinkState.UP)
            cloud.sessions[number].end("restart", "the cloud restarts")
            await until(lambda: link.status.state is LinkState.DOWN)
            seen.append(link.status.failures)
    assert seen == failures


async def test_a_cloud_that_is_not_there_is_waited_for() -> None:
    log = Log(blocks(1))
    async with linking(client(1, log)) as link:
        await until(lambda: link.status.failures >= 2)
        assert link.status.state is LinkState.DOWN
        assert "cannot connect" in link.status.reason


async def test_another_server_is_told_apart() -> None:
    async def page(scope: dict[str, str], receive: object, send: object) -> None:
        await send({"type": "websocket.close"})  # type: ignore[operator]

    async with serving(page) as port, linking(client(port, Log([]))) as link:
        await until(lambda: link.status.state is LinkState.DOWN)
        assert "403 Forbidden" in link.status.reason


async def test_stopping_while_the_handshake_hangs_does_not_wait_for_it() -> None:
    async def hang(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(3)

    async with serving(hang) as port:
        link = client(port, Log([]))
        stop = asyncio.Event()
        task = asyncio.create_task(link.run(stop))
        await asyncio.sleep(0.2)
        stop.set()
        async with asyncio.timeout(1.5):
            await task


async def test_what_the_log_raises_comes_out() -> None:
    class Failing(Log):
        def give_back(self) -> None:
            raise OSError("disk is gone")

    cloud = Cloud()
    async with serving(cloud.app) as port:
        with pytest.raises(ExceptionGroup) as caught:
            await client(port, Failing([])).run(asyncio.Event())
    assert caught.group_contains(OSError, match="disk is gone")


async def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    cloud, log = Cloud(), Log(blocks(3))
    async with serving(cloud.app, cert=cert, key=key) as port:
        async with linking(client(port, log, scheme="wss", ca_file=cert)):
            await drained(log)
        async with linking(client(port, log, scheme="wss")) as link:
            await until(lambda: link.status.state is LinkState.DOWN)
            assert "certificate does not hold: self-signed certificate" in link.status.reason
    with pytest.raises(OSError):
        client(1, log, scheme="wss", ca_file=tmp_path / "none.pem")


async def test_dates_of_certificates_count_only_once_the_clock_is_set(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, expired=True)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    cloud, log = Cloud(), Log(blocks(3))
    async with serving(cloud.app, cert=cert, key=key) as port:
        async with linking(client(port, log, scheme="wss", ca_file=cert, wall_ms=lambda: 60_000)):
            await drained(log)
        async with linking(client(port, log, scheme="wss", ca_file=cert)) as link:
            await until(lambda: link.status.state is LinkState.DOWN)
            assert "certificate has expired" in link.status.reason
        ca_file, _ = certificate(stranger)
        async with linking(client(port, log, scheme="wss", ca_file=ca_file, wall_ms=lambda: 60_000)) as link:
            await until(lambda: link.status.state is LinkState.DOWN)
            assert "certificate does not hold" in link.status.reason


async def test_certificates_are_judged_by_true_time_where_the_machines_clock_is_wrong(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    now_ms, day_ms = wall_ms(), 24 * 3600 * 1000
    (cert_old, key_old), (cert_new, key_new) = certificate(old, expired=True), certificate(new)

    async def dial(port: int, cert: Path, shown_ms: int, true_ms: int) -> None:
        opened = await WebSocketDial(
            f"wss://127.0.0.1:{port}/link/v1",
            wall_ms=lambda: shown_ms,
            true_ms=lambda: true_ms,
            ca_file=cert,
            deadlines=Deadlines(),
        )(token(int(time.time())), software="test")
        opened.abort()

    async with serving(Cloud().app, cert=cert_old, key=key_old) as port:
        await dial(port, cert_old, now_ms, now_ms - day_ms)
        await dial(port, cert_old, 0, now_ms - day_ms)
        with pytest.raises(DialError, match="has expired"):
            await dial(port, cert_old, now_ms, now_ms)
    async with serving(Cloud().app, cert=cert_new, key=key_new) as port:
        await dial(port, cert_new, 0, 0)
        for shown_ms in (0, now_ms):
            with pytest.raises(DialError, match="certificate has expired"):
                await dial(port, cert_new, shown_ms, now_ms + day_ms)
            with pytest.raises(DialError, match="certificate is not yet valid"):
                await dial(port, cert_new, shown_ms, now_ms - day_ms)


async def test_frames_that_break_the_protocol_end_the_session_with_its_name() -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    cloud = Cloud()
    async with serving(cloud.app) as port:
        headers = {"Authorization": f"Bearer {token(int(time.time()))}"}
        for data in (b"\x01\x0a\x91\x01", b"nonsense", "text"):
            async with connect(f"ws://127.0.0.1:{port}/", additional_headers=headers, proxy=None) as websocket:
                await websocket.send(data)
                goodbye = decode_frame(await websocket.recv(decode=False))
                assert isinstance(goodbye, Goodbye)
                with pytest.raises(ConnectionClosed) as caught:
                    await websocket.recv()
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1002
    assert [session.figures.reason.split(":")[0] for session in cloud.sessions] == ["order", "version", "malformed"]
