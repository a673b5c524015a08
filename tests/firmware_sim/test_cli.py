"""The command line: what people may write, and what they are told when it is wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from firmware_sim.cli import app
from firmware_sim.cli.fleet import choose_devices, each_rate, placed, unlisted_protocol
from firmware_sim.cli.options import assignment, duration_s
from firmware_sim.cli.send import choose_password
from firmware_sim.devices.roster import RosterDevice, read_roster
from firmware_sim.run_folder import Bench, DemoState, read_state, running_state, write_state
from tidegate.console import UserError

UNLISTED = RosterDevice("", password="net", network="old", profile="tank")


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60.0), ("90", 90.0), ("1.5m", 90.0), ("2h", 7200.0), ("250ms", 0.25)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0s", "-5s", "5 s", "5d", "1e3"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UserError, match="is not a duration"):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("temperature=71.5", ("temperature", 71.5)),
        ("running=true", ("running", True)),
        ("note=", ("note", "")),
        ("note=a=b", ("note", "a=b")),
        ('position={"lat":53.5,"lon":10}', ("position", {"lat": 53.5, "lon": 10})),
        ("valve=open", ("valve", "open")),
    ],
)
def test_values(text: str, value: tuple[str, object]) -> None:
    assert assignment(text) == value


@pytest.mark.parametrize("text", ["71.5", "=5"])
def test_what_is_no_value(text: str) -> None:
    with pytest.raises(UserError, match="is not name=value"):
        assignment(text)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "inf", "1e999"])
def test_a_number_that_json_cannot_hold_is_refused_and_not_sent_as_text(value: str) -> None:
    with pytest.raises(UserError, match="is not a number JSON can hold"):
        assignment(f"temperature={value}")
    assert assignment(f'temperature="{value}"') == ("temperature", value)


def test_a_roster_is_read_from_csv_and_json(tmp_path) -> None:  # type: ignore[no-untyped-def]
    wanted = [
        RosterDevice("p-1", password="a", network="n", keyed=False, port=1885),
        RosterDevice("p-2", password="b", network="n", profile="tank"),
        RosterDevice("u-3", network="n", port=1502, protocol="modbus", unit=3),
        RosterDevice("s-4", network="n", protocol="serial", path="/tmp/s-4"),
    ]
    as_csv, as_json = tmp_path / "devices.csv", tmp_path / "devices.json"
    as_csv.write_text(
        "name,password,network,keyed,port,profile,protocol,path,unit\n"
        "p-1,a,n,false,1885,,,,\np-2,b,n,,,tank,,,\nu-3,,n,,1502,,modbus,,3\ns-4,,n,,,,serial,/tmp/s-4,\n"
    )
    as_json.write_bytes(msgspec.json.encode(wanted))
    assert read_roster(as_csv) == read_roster(as_json) == wanted


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "[]", "names no device"),
        ("a.json", '[{"user": "x"}]', "name"),
        ("a.json", '[{"name": "a"}, {"name": "a"}]', "named twice"),
        ("a.json", '[{"name": "a", "profile": "rocket"}]', "no profile 'rocket'"),
        ("a.json", '[{"name": "a", "protocol": "fax"}]', "fax"),
        ("a.json", '[{"name": "a", "protocol": "serial"}]', "a has no path"),
        ("a.json", '[{"name": "a", "protocol": "tcp", "path": "x"}]', "tcp has no use for"),
        ("a.json", '[{"name": "a", "protocol": "modbus"}]', "a has no port"),
        ("a.json", '[{"name": "a", "protocol": "modbus", "port": 1502, "unit": 248}]', "unit"),
        ("a.csv", "name,protocol,port\na,modbus,1502\nb,modbus,1502\n", "b and a are both unit 1 at port 1502"),
        ("a.csv", "name,protocol,path\na,serial,/x\nb,serial,/x\n", "b and a are both at /x"),
        ("a.csv", "name,port\na,many\n", "port"),
        ("a.csv", "", "names no device"),
    ],
)
def test_a_roster_that_is_wrong_is_refused(tmp_path, name: str, content: str, said: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read_roster(tmp_path / name)


def test_a_fleet_takes_the_list_then_unknown_devices_by_the_networks_credential() -> None:
    listed = [RosterDevice("p-1"), RosterDevice("p-2")]
    assert choose_devices(listed, None, UNLISTED) == listed
    assert choose_devices(listed, 1, UNLISTED) == listed[:1]
    more = choose_devices(listed, 4, UNLISTED)
    assert [device.name for device in more] == ["p-1", "p-2", "sim-0001", "sim-0002"]
    assert (more[3].password, more[3].network, more[3].profile) == ("net", "old", "tank")


def test_without_a_credential_there_are_no_more_devices_than_listed() -> None:
    with pytest.raises(UserError, match="3 devices are wanted, 1 are listed"):
        choose_devices([RosterDevice("p-1")], 3, RosterDevice(""))
    with pytest.raises(UserError, match="no devices are known"):
        choose_devices([], None, RosterDevice(""))


def test_devices_in_no_list_need_a_password_where_their_protocol_has_one() -> None:
    made = choose_devices([], 2, RosterDevice("", protocol="udp"))
    assert [(device.name, device.protocol) for device in made] == [("sim-0001", "udp"), ("sim-0002", "udp")]
    with pytest.raises(UserError, match="credential"):
        choose_devices([], 2, RosterDevice("", protocol="coap"))


def test_a_protocol_that_gives_each_device_a_place_of_its_own_needs_a_list() -> None:
    assert unlisted_protocol("coap") == "coap"
    with pytest.raises(UserError, match="place of its own"):
        unlisted_protocol("serial")
    with pytest.raises(UserError, match="no protocol 'fax'"):
        unlisted_protocol("fax")


def test_the_demos_mqtt_port_is_for_devices_that_speak_mqtt_and_name_none() -> None:
    roster = [RosterDevice("a"), RosterDevice("b", port=7), RosterDevice("c", protocol="coap")]
    demo = DemoState(mqtt_port=1884)
    assert [device.port for device in placed(roster, demo, None)] == [1884, 7, 0]
    assert [device.port for device in placed(roster, demo, 9)] == [0, 7, 0]


def test_rates() -> None:
    assert each_rate(100.0, None, 50) == 2.0
    assert each_rate(None, 3.0, 50) == 3.0
    assert each_rate(None, None, 50) == 1.0
    with pytest.raises(UserError, match="exclude each other"):
        each_rate(1.0, 1.0, 50)


def test_send_takes_the_demos_credentials() -> None:
    demo = DemoState(
        network_password="net",
        devices=[RosterDevice("p-1", password="a")],
        benches={"mqtt": Bench(RosterDevice("b", password="c"))},
    )
    assert choose_password(demo, "b", network_credential=False) == "c"
    assert choose_password(demo, "p-1", network_credential=False) == "a"
    assert choose_password(demo, "nobody", network_credential=True) == "net"
    with pytest.raises(UserError, match="no device 'nobody'") as caught:
        choose_password(demo, "nobody", network_credential=False)
    assert "b, p-1" in caught.value.remedy


def test_send_takes_no_credential_of_a_device_that_has_none() -> None:
    demo = DemoState(benches={"tcp": Bench(RosterDevice("bench-tcp", protocol="tcp"))})
    with pytest.raises(UserError, match="bench-tcp has no credential: it speaks tcp"):
        choose_password(demo, "bench-tcp", network_credential=False)


def test_send_tells_how_to_write_to_a_bench_that_the_gateway_comes_to(tmp_path: Path) -> None:
    bench = Bench(RosterDevice("bench-serial", protocol="serial", path="/x"), command="echo … > .run/serial/bench")
    write_state(tmp_path, DemoState(benches={"serial": bench}))
    result = CliRunner().invoke(app, ["send", "bench-serial", "t=1", "--run", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert result.exception.remedy == bench.command


def test_a_mistyped_device_is_answered_with_the_one_that_was_meant_and_not_with_all() -> None:
    demo = DemoState(
        benches={"mqtt": Bench(RosterDevice("bench-01"))},
        devices=[RosterDevice(f"pump-{number:02d}") for number in range(1, 21)],
    )
    with pytest.raises(UserError) as close:
        choose_password(demo, "bench-1", network_credential=False)
    assert close.value.remedy.startswith("did you mean bench-01?")
    assert "pump" not in close.value.remedy
    with pytest.raises(UserError) as far:
        choose_password(demo, "xyz", network_credential=False)
    assert "one of bench-01, pump-01, pump-02, pump-03, pump-04 and 16 more" in far.value.remedy


def test_the_demos_state_is_kept_and_only_its_owner_may_read_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    state = DemoState(password="gull", pids={"demo": 1}, benches={"mqtt": Bench(RosterDevice("bench-01"))})
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert running_state(tmp_path).password == "gull"
    assert (tmp_path / "demo.json").stat().st_mode & 0o777 == 0o600


def test_without_a_demo_it_is_said_how_to_start_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert read_state(tmp_path) is None
    with pytest.raises(UserError, match="no demo in") as caught:
        running_state(tmp_path)
    assert "make run" in caught.value.remedy
    write_state(tmp_path, DemoState())
    with pytest.raises(UserError, match="no demo runs in"):
        running_state(tmp_path)
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "words", [["send", "bench-01", "t=1"], ["unplug"], ["verify"], ["fleet"], ["scenario", "power-cut"]]
)
def test_outside_of_a_clone_each_command_says_that_there_is_no_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, UserError)
    assert error.message == "no demo in ./.run"
    assert "cd to the clone" in error.remedy
    assert "--run DIR" in error.remedy


@pytest.mark.parametrize("command", ["fleet", "scenario", "send", "unplug", "verify"])
def test_each_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_named_scenarios_are_listed() -> None:
    result = CliRunner().invoke(app, ["scenario", "--list"])
    assert result.exit_code == 0
    for name in ("flaky-cellular", "night-outage", "power-cut", "bad-clock"):
        assert name in result.output


def test_a_scenario_that_is_wrong_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(
        'title = "One"\nduration = "1h"\n[[event]]\nwhat = "cut"\nat = "2h"\nfor = "1s"\n'
    )
    error = CliRunner().invoke(app, ["scenario", str(tmp_path / "one.toml")]).exception
    assert isinstance(error, UserError)
    assert "one.toml, line 5: event[0].at: it ends at 7201 s" in error.message


def test_the_version_is_the_distributions() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("tidegate-sim 0.")


def test_wrong_usage_is_exit_code_2() -> None:
    assert CliRunner().invoke(app, ["fleet", "--qos", "2"]).exit_code == 2
    assert CliRunner().invoke(app, ["send", "bench-01"]).exit_code == 2


def test_every_field_of_a_device_stands_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "SCENARIOS.md").read_text()
    rows = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    assert [field for field in RosterDevice.__struct_fields__ if f"`{field}`" not in rows] == []
