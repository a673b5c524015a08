"""Enrolment against a real HTTP server, and the files it leaves."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.enrolment import enrol as real_enrol
from edge.identity import FACTS_FILE, KEY_FILE, Enrolment, load_identity
from sync.link.tokens import public_key, verify
from tests.sync.link.platform import certificate
from tidegate.console import UserError

pytestmark = pytest.mark.servers

ANSWER = {"gateway_id": "quay-1", "project_id": "demo", "link_url": "wss://cloud/link/v1"}


class CloudHandler(http.server.BaseHTTPRequestHandler):
    server: Cloud

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        status, answer = self.server.answers.pop(0)
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *args: object) -> None:
        pass


class Cloud(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that do not like the certificate break off."""

    def __init__(self, answers: list[tuple[int, object]]) -> None:
        super().__init__(("127.0.0.1", 0), CloudHandler)
        self.answers = answers
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def cloud(*answers: tuple[int, object], tls: tuple[Path, Path] | None = None) -> Iterator[Cloud]:
    server = Cloud(list(answers))
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


enrol = functools.partial(real_enrol, sleep=lambda seconds: None)


def test_a_gateway_is_enrolled_and_signs_with_the_key_that_the_cloud_was_told(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    with cloud((200, ANSWER)) as server:
        assert enrol(server.url + "/", "t0ken", data_dir) == Enrolment("demo", "quay-1", server.url, ANSWER["link_url"])
        path, body = server.asked[0]
        assert (path, body["token"]) == ("/api/v1/enrolments", "t0ken")
    identity = load_identity(data_dir)
    assert identity is not None
    key = public_key(base64.b64decode(body["public_key"]))
    assert verify(identity.token(1_700_000_000), [key], now_s=1_700_000_000).gateway_id == "quay-1"


def test_nobody_else_may_read_the_key_and_nothing_is_left_over(tmp_path: Path) -> None:
    with cloud((200, ANSWER)) as server:
        enrol(server.url, "t0ken", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {KEY_FILE, FACTS_FILE}
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_after_a_lost_answer_the_same_key_is_sent_again(tmp_path: Path) -> None:
    with cloud((0, None), (503, {}), (200, ANSWER)) as server:
        enrol(server.url, "t0ken", tmp_path)
        assert len({body["public_key"] for _, body in server.asked}) == 1
        assert len(server.asked) == 3


def test_a_second_command_after_a_failure_uses_the_same_key(tmp_path: Path) -> None:
    with cloud((500, b""), (200, ANSWER)) as server:
        with pytest.raises(UserError):
            enrol(server.url, "t0ken", tmp_path)
        assert load_identity(tmp_path) is None
        enrol(server.url, "t0ken", tmp_path)
        assert len({body["public_key"] for _, body in server.asked}) == 1


def test_an_enrolled_gateway_is_not_enrolled_over(tmp_path: Path) -> None:
    with cloud((200, ANSWER), (200, ANSWER)) as server:
        enrol(server.url, "t0ken", tmp_path)
        with pytest.raises(UserError, match="already enrolled as quay-1 of project demo"):
            enrol(server.url, "t0ken", tmp_path)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "answer", "message", "remedy"),
    [
        (410, {"code": "expired", "detail": "this enrolment token has expired"}, "token has expired", "new enrolment"),
        (401, {"detail": "not known here"}, "401: not known here", "new enrolment token"),
        (404, b"<html>", "404", "check the address"),
        (500, {}, "500: Internal Server Error", "the cloud's log"),
        (200, {"hello": "world"}, "not an enrolment", "check the address"),
        (200, b"<html>", "not an enrolment", "check the address"),
        (422, {"detail": [{"msg": "too short"}]}, "422", "copy the token"),
    ],
)
def test_each_refusal_says_what_to_do(tmp_path: Path, status: int, answer: object, message: str, remedy: str) -> None:
    with cloud((status, answer)) as server, pytest.raises(UserError, match=message) as caught:
        enrol(server.url, "t0ken", tmp_path)
    assert remedy in caught.value.remedy
    assert load_identity(tmp_path) is None


def test_a_cloud_that_only_starts_is_asked_again_but_not_for_ever(tmp_path: Path) -> None:
    with cloud(*[(503, {})] * 10) as server:
        with pytest.raises(UserError, match="503"):
            enrol(server.url, "t0ken", tmp_path)
        assert len(server.asked) == 4


@pytest.mark.parametrize("url", ["", "cloud.example.com", "ftp://cloud", "https://", "mqtt://cloud:1883"])
def test_an_address_that_is_none_is_refused_before_a_key_is_made(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="is not the address of a cloud"):
        enrol(url, "t0ken", tmp_path)
    assert not list(tmp_path.iterdir())


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match="no answer from") as caught:
        enrol(f"http://127.0.0.1:{port}", "t0ken", tmp_path)
    assert "firewall" in caught.value.remedy


def test_a_certificate_of_ones_own_needs_its_authority(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    data_dir = tmp_path / "data"
    with cloud((200, ANSWER), tls=tls) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(UserError, match=r"certificate of .* does not hold") as caught:
            enrol(url, "t0ken", data_dir)
        assert "--ca-file" in caught.value.remedy
        assert enrol(url, "t0ken", data_dir, ca_file=tls[0]).gateway_id == "quay-1"
    with pytest.raises(UserError, match=r"cannot read .*none\.pem"):
        enrol(url, "t0ken", tmp_path / "other", ca_file=tmp_path / "none.pem")


def test_plain_http_behind_an_https_address_is_named(tmp_path: Path) -> None:
    with cloud((200, ANSWER)) as server, pytest.raises(UserError, match="TLS with") as caught:
        enrol(server.url.replace("http:", "https:"), "t0ken", tmp_path)
    assert "http://" in caught.value.remedy


@pytest.mark.parametrize("name", [KEY_FILE, FACTS_FILE])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    with cloud((200, ANSWER)) as server:
        enrol(server.url, "t0ken", tmp_path)
    (tmp_path / name).write_bytes(b"\x00 damaged")
    with pytest.raises(UserError, match=f"{name} is damaged"):
        load_identity(tmp_path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with cloud((200, ANSWER)) as server:
        enrol(server.url, "t0ken", tmp_path)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(UserError, match=r"identity\.key is missing"):
        load_identity(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot (read|write)"):
        enrol("http://127.0.0.1:1", "t0ken", tmp_path / "file")
