"""Configuration: what a user gets from a file and the environment, and what they are told when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from tidegate import config

MIB = 1 << 20


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was
    promised."""

    max_bytes: Annotated[int, msgspec.Meta(ge=64 * MIB, description="Hard cap of the log.")] = 2048 * MIB
    directory: Annotated[Path, msgspec.Meta(description="Where it lies.")] = Path("data/log")


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: Annotated[int, msgspec.Meta(ge=1, le=65535, description="Where devices connect.")]
    network: Annotated[str, msgspec.Meta(min_length=1, description="Whose devices they are.")] = "serial"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(description="What it is called.")] = "quay-1"
    level: Annotated[Literal["debug", "info"], msgspec.Meta(description="What is logged.")] = "info"
    verify: Annotated[bool, msgspec.Meta(description="Whether certificates are checked.")] = True
    rate: Annotated[float, msgspec.Meta(description="Of something.")] = 1.0
    api_token: Annotated[
        Annotated[str, msgspec.Meta(max_length=8)] | None, msgspec.Meta(description="For the API.")
    ] = None
    log: Log = Log(max_bytes=1024 * MIB)
    listeners: Annotated[tuple[Listener, ...], msgspec.Meta(description="What listens.")] = ()
    labels: Annotated[dict[str, str], msgspec.Meta(description="Shown with it.")] = {}


def load(tmp_path: Path, text: str = "", **environ: str) -> Config:
    file = tmp_path / "edge.toml"
    file.write_text(text)
    return config.load(Config, file=file, env_prefix="TG", environ=environ)


def failure(tmp_path: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(config.ConfigError) as caught:
        load(tmp_path, text, **environ)
    return f"{caught.value.message} | {caught.value.remedy}".replace(f"{tmp_path}/", "")


def test_defaults_need_no_file() -> None:
    loaded = config.load(Config, file=None, env_prefix="TG", environ={})
    assert loaded == Config()
    with pytest.raises(AttributeError):
        loaded.name = "other"  # type: ignore[misc]  # that it is refused is the point


def test_a_file_sets_values(tmp_path: Path) -> None:
    loaded = load(tmp_path, 'name = "pier-2"\n[log]\nmax_bytes = 67108864\n[[listeners]]\nport = 1883\n')
    assert loaded.name == "pier-2"
    assert loaded.log == Log(max_bytes=64 * MIB)
    assert loaded.listeners == (Listener(port=1883),)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        'name = "pier-2"\n[log]\nmax_bytes = 67108864\n',
        TG_NAME="42",
        TG_LEVEL="debug",
        TG_VERIFY="no",
        TG_RATE="2",
        TG_LOG__MAX_BYTES="134217728",
        TG_LOG__DIRECTORY="/srv/log",
        TG_LISTENERS='[{"port": 1884, "network": "boat"}]',
        TG_LABELS='{"site": "harbour"}',
    )
    assert loaded == Config(
        name="42",
        level="debug",
        verify=False,
        rate=2.0,
        log=Log(max_bytes=128 * MIB, directory=Path("/srv/log")),
        listeners=(Listener(port=1884, network="boat"),),
        labels={"site": "harbour"},
    )


def test_a_variable_for_a_table_comes_before_those_for_its_fields(tmp_path: Path) -> None:
    loaded = load(tmp_path, TG_LOG='{"directory": "a", "max_bytes": 67108864}', TG_LOG__DIRECTORY="b")
    assert loaded.log == Log(max_bytes=64 * MIB, directory=Path("b"))


def test_names_that_others_set_are_passed_over(tmp_path: Path) -> None:
    assert load(tmp_path, TG_PORT="tcp://10.0.0.1:80", TG_DEBUG="1", OTHER__NAME="x") == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[log]\nmax_bytes = 12", "edge.toml, line 2: log.max_bytes: 12 is below the minimum 67108864"),
        ("[[listeners]]\nport = 70000", "edge.toml, line 2: listeners[0].port: 70000 is above the maximum 65535"),
        (
            "[[listeners]]\nport = 1\nnetwork = ''",
            "edge.toml, line 3: listeners[0].network: '' does not have at least 1 character",
        ),
        ("[log]\nmax_bytes = 'big'", "edge.toml, line 2: log.max_bytes: 'big': expected int, got str"),
        ("[log]\ndirectory = 3", "edge.toml, line 2: log.directory: 3: expected str, got int"),
        ("log = 3", "edge.toml, line 1: log: 3: expected object, got int"),
        ("level = 'loud'", "edge.toml, line 1: level: 'loud': invalid enum value 'loud'"),
        ("[log]\nmax_byte = 1", "edge.toml, line 2: log.max_byte: no such setting | log.max_bytes"),
        (
            "[[listeners]]\nport = 1\nnetwrk = 'a'",
            "edge.toml, line 3: listeners[0].netwrk: no such setting | listeners[].network",
        ),
        ("zzz = 1", "edge.toml, line 1: zzz: no such setting | remove zzz"),
        (
            "[[listeners]]\nnetwork = 'a'",
            "edge.toml, line 1: listeners[0].port: required, and not set | set listeners[0].port",
        ),
        ("name = 'a'\nname = 'b'\n", "edge.toml, line 2, column 11: not valid TOML: Cannot overwrite a value"),
        ("a = 1\nb = [1, \n", "edge.toml, at its end: not valid TOML:"),
        ("api_token = 'a-real-secret'", "edge.toml, line 1: api_token: [redacted] does not have at most 8 characters"),
        ("log = 'nats://u:hunter2@h'", "edge.toml, line 1: log: 'nats://u:[redacted]@h': expected object, got str"),
        ("listeners = 'x'", "edge.toml, line 1: listeners: 'x': expected array, got str"),
        (f"rate = '{'x' * 200}'", "x" * 59 + "…: expected float, got str"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in failure(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TG_LOG__MAX_BYTES", "12", "TG_LOG__MAX_BYTES: log.max_bytes: 12 is below the minimum 67108864"),
        ("TG_LOG__MAX_BYTES", "2G", "TG_LOG__MAX_BYTES: log.max_bytes: '2G': expected int, got str"),
        ("TG_LOG__MAX_BYTE", "12", "TG_LOG__MAX_BYTE: no setting has this name | TG_LOG__MAX_BYTES"),
        ("TG_LISTENERS", "1883,1884", "TG_LISTENERS: listeners: '1883,1884' is not JSON | write lists as"),
        ("TG_LISTENERS", '[{"port": 0}]', "TG_LISTENERS: listeners[0].port: 0 is below the minimum 1"),
        ("TG_VERIFY", "maybe", "TG_VERIFY: verify: 'maybe': expected bool, got str"),
    ],
)
def test_a_mistake_in_the_environment_is_named_with_its_variable(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    assert expected in failure(tmp_path, **{name: value})


def test_a_variable_within_something_that_is_no_table(tmp_path: Path) -> None:
    assert "edge.toml, line 1: log: 3: expected object, got int" in failure(tmp_path, "log = 3", TG_LOG__DIRECTORY="a")


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    for content, expected in (
        (None, "edge.toml: No such file or directory"),
        (b"a = 1\nb = '\xff'", "edge.toml, line 2: not UTF-8"),
        (b"#" * (config.CONFIG_BYTES_MAX + 1), "edge.toml: more than 1048576 bytes"),
    ):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(config.ConfigError, match=expected):
            config.load(Config, file=file, env_prefix="TG", environ={})


def test_settings_are_listed_as_their_user_writes_them() -> None:
    listed = {setting.path: setting for setting in config.settings(Config, env_prefix="TG")}
    assert list(listed) == [
        "name", "level", "verify", "rate", "api_token", "log.max_bytes", "log.directory",
        "listeners", "listeners[].port", "listeners[].network", "labels",
    ]  # fmt: skip
    cap = listed["log.max_bytes"]
    assert cap == config.Setting(
        path="log.max_bytes",
        type="integer",
        default=str(1024 * MIB),
        limits=f">= {64 * MIB}",
        description="Hard cap of the log.",
        environment="TG_LOG__MAX_BYTES",
        table="What was promised.",
    )
    assert listed["level"].type == '"debug" or "info"'
    assert listed["api_token"].default == "not set"
    assert listed["listeners"].type == "list of table"
    assert (listed["listeners[].port"].default, listed["listeners[].port"].environment) == ("required", "")


def test_every_listed_variable_sets_its_setting() -> None:
    values = {"text": "debug", "integer": "99999999", "number": "2", "path": "p", "true or false": "false"}
    for setting in config.settings(Config, env_prefix="TG"):
        value = values.get(setting.type, "debug")
        if setting.environment and not setting.type.startswith(("list", "table")):
            loaded = config.load(Config, file=None, env_prefix="TG", environ={setting.environment: value})
            assert loaded != Config(), setting.environment
