"""What the checks say of ports, adapters, certificates and the cloud."""

from __future__ import annotations

import datetime
import os
import pty
import socket
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.config import EdgeConfig, LinkConfig, MqttConfig
from edge.data_folder import Running
from edge.doctor import cloud, peers, ports, serial_ports, tls
from edge.doctor.finding import Finding, Site, State
from edge.identity import Enrolment, make_key, save_enrolment
from edge.listeners.config import Socket, TlsFiles

NOW_S = 1_700_000_000.0


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_is_free_or_its_holder_is_named(taken: int) -> None:
    found = ports.of("port of mqtt", Socket("127.0.0.1", taken), 0)
    assert found.state is State.FAILED
    assert f"in use by {Path('/proc/self/comm').read_text().strip()}, process {os.getpid()}" in found.seen
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert ports.of("port", Socket("127.0.0.1", free), 0).seen.endswith(": free")


def test_a_datagram_port_is_not_confused_with_a_stream_of_the_same_number(taken: int) -> None:
    assert ports.of("port of coap", Socket("127.0.0.1", taken, "udp"), 0).state is State.OK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        found = ports.of("port of coap", Socket("127.0.0.1", sock.getsockname()[1], "udp"), 0)
    assert found.state is State.FAILED
    assert f"process {os.getpid()}" in found.seen


def test_an_address_of_another_machine() -> None:
    found = ports.of("port of mqtt", Socket("192.0.2.7", 1883), 0)
    assert (found.state, found.remedy) == (State.FAILED, "set its host to an address of this machine, or 0.0.0.0")


def test_what_the_gateway_itself_holds_is_in_order(tmp_path: Path, taken: int) -> None:
    config = EdgeConfig(data_dir=tmp_path, mqtt=(MqttConfig("mqtt", "quay", "127.0.0.1", taken),))
    running = Running(4711, "http://127.0.0.1:8081", {"mqtt": taken})
    found = list(ports.check(Site(config, running, None, "", "")))
    assert [(one.state, one.seen.partition(": ")[2]) for one in found] == [
        (State.OK, "held by this gateway, process 4711"),
        (State.OK, "held by this gateway, process 4711"),
    ]


def test_an_adapter_is_there_or_waited_for(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    assert serial_ports.of("serial port of meter", os.ttyname(theirs)).state is State.OK
    os.close(ours)
    os.close(theirs)
    absent = serial_ports.of("serial port of meter", "/dev/ttyUSB77")
    assert absent.state is State.WARNING
    assert "is not there: the gateway waits for it" in absent.seen
    (tmp_path / "file").touch()
    assert serial_ports.of("serial port of meter", str(tmp_path / "file")).state is State.FAILED


def test_a_peer_is_open_or_waited_for(taken: int) -> None:
    assert peers.of("peer of meter", Socket("127.0.0.1", taken)).state is State.OK
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    found = peers.of("peer of meter", Socket("127.0.0.1", free))
    assert (found.state, found.seen) == (
        State.WARNING,
        f"127.0.0.1:{free}: Connection refused; the gateway waits for it",
    )


def certificate(folder: Path, name: str, *, days: float) -> TlsFiles:
    """A certificate that ends so many days after NOW_S, and its key."""
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.fromtimestamp(NOW_S, datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, None)
    )
    files = TlsFiles(folder / f"{name}.crt", folder / f"{name}.key")
    files.cert.write_bytes(made.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files.key.chmod(0o600)
    return files


@pytest.mark.parametrize(("days", "state"), [(100, State.OK), (20, State.WARNING), (-1, State.FAILED)])
def test_a_certificate_is_judged_by_its_end(tmp_path: Path, days: float, state: State) -> None:
    found = tls.of("mqtt", certificate(tmp_path, "quay", days=days), NOW_S)
    assert (found.check, found.state) == ("TLS of mqtt", state)
    assert "CN=quay" in found.seen


def test_a_key_of_another_certificate_and_one_that_everybody_reads(tmp_path: Path) -> None:
    one, other = (certificate(tmp_path, name, days=100) for name in ("one", "other"))
    found = tls.of("mqtt", TlsFiles(one.cert, other.key), NOW_S)
    assert found.state is State.FAILED
    assert "the key must be the certificate's" in found.remedy
    one.key.chmod(0o644)
    assert tls.of("mqtt", one, NOW_S).remedy == f"chmod o-rwx {one.key}"


def steps(site_folder: Path, url: str, *, enrolled: bool = True) -> list[Finding]:
    if enrolled:
        make_key(site_folder)
        save_enrolment(site_folder, Enrolment("demo", "quay-1", "http://127.0.0.1:1", url))
    config = EdgeConfig(data_dir=site_folder, link=LinkConfig(url=url))
    return list(cloud.check(Site(config, None, None, "tidegate-edge enroll", "")))


def test_a_gateway_that_is_not_enrolled_is_told_how(tmp_path: Path) -> None:
    (found,) = steps(tmp_path, "", enrolled=False)
    assert (found.state, found.remedy) == (State.WARNING, "tidegate-edge enroll")


def test_the_first_step_that_fails_is_the_last(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    enrolment, name, closed = steps(tmp_path, f"ws://127.0.0.1:{port}/link/v1")
    assert (enrolment.state, name.state, closed.state) == (State.OK, State.OK, State.FAILED)
    assert closed.seen == f"tcp 127.0.0.1:{port}: Connection refused"
    assert "firewall" in closed.remedy


def test_a_name_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    _, found = steps(tmp_path, "wss://cloud.invalid/link/v1")
    assert (found.check, found.state) == ("cloud name", State.FAILED)
    assert found.seen == "cloud.invalid: Name or service not known"


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [(1, State.OK, "within 2 s"), (30, State.OK, "30 s ahead of"), (-3600, State.WARNING, "3,600 s behind")],
)
def test_how_far_the_clocks_are_apart(ahead_s: int, state: State, words: str) -> None:
    found = cloud.skew_of(formatdate(NOW_S, usegmt=True), NOW_S + ahead_s)
    assert found is not None
    assert found.state is state
    assert words in found.seen
    assert cloud.skew_of("no date", NOW_S) is None
