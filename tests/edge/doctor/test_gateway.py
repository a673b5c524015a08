"""What doctor says of a gateway that runs, and what it packs for somebody far away."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

import msgspec
import pytest

from edge.config import EdgeConfig, LinkConfig
from edge.data_folder import Running
from edge.doctor.bundle import CONTENTS, FOLDER, contents, write
from edge.doctor.finding import Site, State, ok
from edge.doctor.gateway import check, of
from edge.identity import KEY_FILE, make_key
from edge.status.rejects import RefusedPacket, Rejected, Rejections, payload_of
from tests.edge.test_cli import accounting
from tidegate.console import UserError


def states(**changes: object) -> dict[str, State]:
    return {finding.check: finding.state for finding in of(accounting(**changes))}


def test_a_gateway_that_is_well() -> None:
    assert set(states().values()) == {State.OK}


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({"closed": False}, "accounting", State.FAILED),
        ({"log__trouble": "log-failed: EIO"}, "log", State.FAILED),
        ({"log__used_bytes": 1_900_000_000}, "log", State.WARNING),
        ({"link__state": "down", "link__reason": "no answer"}, "link", State.WARNING),
        ({"clock__is_disputed": True}, "gateway clock", State.WARNING),
        ({"refused": {"log-full": 3}}, "refused", State.WARNING),
        ({"turned_away": {"wrong_password": 2}}, "turned away", State.WARNING),
        ({"resolver__rejected": 7}, "rejected", State.WARNING),
        (
            {"totals": {"logged": 3, "accepted": 1, "pending": 1, "evicted": 1, "damaged": 0}},
            "losses",
            State.WARNING,
        ),
    ],
)
def test_what_is_wrong_with_it_is_said(changes: dict[str, object], name: str, state: State) -> None:
    assert states(**changes)[name] is state


def test_one_that_does_not_answer_and_one_that_does_not_run(tmp_path: Path) -> None:
    config = EdgeConfig(data_dir=tmp_path)
    (found,) = check(Site(config, Running(4711, "http://127.0.0.1:8081"), None, "", "start it"))
    assert (found.state, found.seen) == (State.FAILED, "process 4711 does not answer at http://127.0.0.1:8081")
    (found,) = check(Site(config, None, None, "", "start it"))
    assert (found.state, found.remedy) == (State.WARNING, "start it")


def test_the_archive_holds_no_secret_and_no_payload(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_key(data)
    config = EdgeConfig(data_dir=data, link=LinkConfig(url="wss://proxy:hunter2@cloud.example/link/v1"))
    seen = accounting(link__url="wss://proxy:hunter2@cloud.example/link/v1")
    rejected = Rejected(
        5, "undecodable", "at byte 3: hunter3", "quay", "serial", "pump", "up", "mqtt", payload_of(b"hunter4")
    )
    refused = RefusedPacket(6, "wrong_password", "no", "mqtt", "10.0.0.1:9", "hunter5", payload_of(b"hunter6"))
    rejections = Rejections([rejected], [refused], {"undecodable": 1}, {"wrong_password": 1})
    findings = [ok("cloud name", "wss://proxy:hunter2@cloud.example answers to Bearer hunter7")]
    site = Site(config, None, seen, "", "")
    parts = contents(site, findings, rejections)
    assert set(parts) == set(CONTENTS)
    file = tmp_path / "support.tar.gz"
    write(file, parts, 1_700_000_000)
    with tarfile.open(file) as archive:
        names = archive.getnames()
        text = "".join((archive.extractfile(name) or pytest.fail(name)).read().decode() for name in names)
    assert names == [f"{FOLDER}/{name}" for name in CONTENTS]
    assert "hunter" not in text
    secret_lines = (data / KEY_FILE).read_text().splitlines()
    assert not [line for line in secret_lines if line in text]
    assert "wrong_password" in text
    assert "cloud.example/link/v1" in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = msgspec.json.decode(parts["refusals.json"])
    assert shown["rejected"] == [{"time_ms": 5, "code": "undecodable", "listener": "mqtt", "size": 7}]
    assert json.loads(parts["config.json"])["data_dir"] == str(data)


def test_an_archive_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "support.tar.gz"
    file.write_text("mine")
    with pytest.raises(UserError, match="File exists"):
        write(file, {}, 0)
    assert file.read_text() == "mine"
