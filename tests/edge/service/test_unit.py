"""The unit asks for what the configuration needs, and for nothing else."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli.service import shown
from edge.config import BusConfig, EdgeConfig, MqttConfig
from edge.listeners.coap.config import CoapConfig
from edge.listeners.stream_config import SerialConfig
from edge.service.install import carry_out, install_plan, uninstall_plan
from edge.service.unit import Service, text
from tidegate.console import UserError

ME = pwd.getpwuid(os.getuid()).pw_name
EXPOSURE_MAX = 2.5
"""systemd's own scale: 10 is naked; what is left is the network, which a gateway is for."""

ADAPTER = SerialConfig("meter", "quay", port="/dev/ttyUSB0", open=True)

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings(config: EdgeConfig, *, program: str = "/opt/tidegate/bin/tidegate-edge") -> dict[str, list[str]]:
    made = text(Service(Path(program), Path("/etc/tidegate/edge.toml"), config, "tidegate"))
    found: dict[str, list[str]] = {}
    for line in made.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_it_starts_the_gateway_and_watches_over_it() -> None:
    found = settings(EdgeConfig())
    assert found["Type"] == ["notify"]
    assert found["ExecStart"] == ["/opt/tidegate/bin/tidegate-edge run --config /etc/tidegate/edge.toml"]
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert found["WatchdogSec"] == ["60"]
    assert (found["Restart"], found["StartLimitIntervalSec"]) == (["always"], ["0"])


def test_only_the_data_folder_can_be_written_to() -> None:
    found = settings(EdgeConfig())
    assert (found["StateDirectory"], found["ProtectSystem"], found["ProtectHome"]) == (
        ["tidegate"],
        ["strict"],
        ["yes"],
    )
    assert "ReadWritePaths" not in found
    found = settings(EdgeConfig(data_dir=Path("/srv/gateway"), bus=BusConfig("ipc:///run/tidegate/bus.sock")))
    assert "StateDirectory" not in found
    assert found["ReadWritePaths"] == ["/srv/gateway", "/run/tidegate"]
    coap = CoapConfig(name="c", network="quay", oscore="/etc/tidegate/oscore")
    assert settings(EdgeConfig(coap=(coap,)))["ReadWritePaths"] == ["/etc/tidegate/oscore"]
    assert settings(EdgeConfig(), program="/home/me/bin/tidegate-edge")["ProtectHome"] == ["read-only"]


def test_a_low_port_is_the_only_reason_for_a_capability() -> None:
    assert settings(EdgeConfig(mqtt=(MqttConfig("m", "quay"),)))["CapabilityBoundingSet"] == [""]
    found = settings(EdgeConfig(mqtt=(MqttConfig("m", "quay", port=883),)))
    assert found["AmbientCapabilities"] == found["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]


def test_devices_are_seen_where_a_listener_has_an_adapter() -> None:
    found = settings(EdgeConfig())
    assert (found["PrivateDevices"], found.get("DeviceAllow")) == (["yes"], None)
    found = settings(EdgeConfig(serial=(ADAPTER,)))
    assert "PrivateDevices" not in found
    assert (found["DevicePolicy"], found["SupplementaryGroups"]) == (["closed"], ["dialout"])
    assert "char-ttyUSB rw" in found["DeviceAllow"]


def test_as_many_files_as_its_listeners_may_need() -> None:
    found = settings(EdgeConfig(mqtt=(MqttConfig("m", "quay", connections_max=5_000),)))
    assert found["LimitNOFILE"] == ["5256"]


@analyze
@pytest.mark.parametrize("adapter", [False, True])
def test_systemd_takes_it_and_finds_little_exposed(tmp_path: Path, *, adapter: bool) -> None:
    config = EdgeConfig(serial=(ADAPTER,)) if adapter else EdgeConfig(mqtt=(MqttConfig("m", "quay"),))
    file = tmp_path / "tidegate-edge.service"
    service = Service(Path(sys.executable), tmp_path / "edge.toml", config, ME)
    file.write_text(text(service))
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr + done.stdout) == (0, "")
    shown = ["systemd-analyze", "security", "--offline=true", "--no-pager", file]
    done = subprocess.run(shown, capture_output=True, text=True, check=False)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure[1]) <= EXPOSURE_MAX + 0.5 * adapter


def service(folder: Path, *, data: Path | None = None, user: str = ME) -> Service:
    for name in ("tidegate-edge", "edge.toml"):
        (folder / name).touch()
    config = EdgeConfig(data_dir=data or Path("/var/lib/tidegate-absent"))
    return Service(folder / "tidegate-edge", folder / "edge.toml", config, user)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that every user may read, as far as the plan can tell."""
    monkeypatch.setattr("edge.service.install._closed_to", lambda *_: None)
    return tmp_path


def test_a_user_is_made_where_there_is_none_and_gets_what_is_there(shared: Path) -> None:
    (shared / "data").mkdir()
    plan = install_plan(service(shared, data=shared / "data", user="nobody-of-this-name"))
    assert [command[0] for command in plan.commands] == ["useradd", "install", "chown", *["systemctl"] * 3]
    assert plan.commands[2] == ["chown", "-R", "nobody-of-this-name:nobody-of-this-name", str(shared / "data")]
    assert [command[0] for command in install_plan(service(shared)).commands] == ["systemctl"] * 3
    assert "[Service]" in plan.lines()
    assert "systemctl daemon-reload" in plan.lines()


def test_what_its_user_could_not_read_is_found_beforehand(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(UserError) as error:
        install_plan(service(tmp_path, user="nobody-of-this-name"))
    assert error.value.message.startswith(f"user nobody-of-this-name may not read {tmp_path / 'tidegate-edge'}: ")
    missing = Service(tmp_path / "tidegate-edge", tmp_path / "none.toml", EdgeConfig(), ME)
    with pytest.raises(UserError, match=r"none\.toml is not there"):
        install_plan(missing)


def test_a_plan_is_carried_out_in_order_and_taken_back(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.service.install.FOLDER", shared)
    done: list[list[str]] = []

    def run(command: object) -> str:
        done.append(list(command))  # type: ignore[call-overload]
        return ""

    with pytest.raises(UserError, match="there is no "):
        carry_out(uninstall_plan(), run)
    assert done == []
    carry_out(install_plan(service(shared)), run)
    file = shared / "tidegate-edge.service"
    assert file.read_text().startswith("[Unit]\n")
    assert [command[1] for command in done] == ["daemon-reload", "enable", "restart"]
    done.clear()
    carry_out(uninstall_plan(), run)
    assert [command[:2] for command in done] == [
        ["systemctl", "disable"],
        ["rm", str(file)],
        ["systemctl", "daemon-reload"],
    ]


def test_what_systemd_says_is_shown_in_words() -> None:
    assert shown("ActiveState=active\nStatusText=9 logged, 0 wait, link up\nMainPID=812\nNRestarts=\n") == [
        {"what": "state", "state": "active"},
        {"what": "says", "state": "9 logged, 0 wait, link up"},
        {"what": "process", "state": "812"},
    ]
