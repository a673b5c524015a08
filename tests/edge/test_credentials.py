from __future__ import annotations

import hashlib

import pytest

from edge.credentials import (
    GUESS_WINDOW_S,
    GUESSES_PER_ADDRESS_MAX,
    GUESSES_PER_NAME_MAX,
    WINDOWS_MAX,
    Credentials,
    Grant,
    Refusal,
    RefusalCode,
)
from sync.registry import Alias, Device, Network, Registry, RegistryChange


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


NETWORK = Network("quay", "serial", secret_sha256=(digest("network"), digest("network-old")))
PUMP = Device(1, "s", "pump", (Alias("quay", "serial", "pump"), Alias("quay", "esn", "55")), None, (digest("pump"),))
PLAIN = Device(2, "s", "pump", (Alias("quay", "serial", "plain"),))
OTHER = Device(3, "s", "pump", (Alias("boat", "serial", "elsewhere"),), None, (digest("elsewhere"),))


@pytest.fixture
def registry() -> Registry:
    made = Registry("demo")
    made.apply(RegistryChange("demo", 0, 1, networks=(NETWORK,), devices=(PUMP, PLAIN, OTHER)))
    return made


@pytest.fixture
def credentials(registry: Registry) -> Credentials:
    return Credentials(registry, "quay")


def tried(
    credentials: Credentials,
    user_name: str | None,
    password: str | None,
    *,
    address: str = "10.0.0.1",
    now_s: float = 0,
) -> str:
    """`key:alias` that was let in, or the code of the refusal."""
    secret = None if password is None else password.encode()
    verdict = credentials.check(user_name, secret, address=address, now_s=now_s)
    return str(verdict.code) if isinstance(verdict, Refusal) else f"{verdict.alias_key}:{verdict.alias}"


@pytest.mark.parametrize(
    ("user_name", "password", "outcome"),
    [
        ("pump", "pump", "serial:pump"),
        ("serial:pump", "pump", "serial:pump"),
        ("esn:55", "pump", "esn:55"),
        ("pump", "wrong", "wrong_password"),
        ("pump", "network", "wrong_password"),  # it has a credential of its own
        ("esn:55", "network", "wrong_password"),
        ("plain", "network", "serial:plain"),
        ("stranger", "network", "serial:stranger"),
        ("stranger", "network-old", "serial:stranger"),
        ("mac:00:1b:44", "network", "mac:00:1b:44"),
        ("stranger", "pump", "wrong_password"),
        ("elsewhere", "elsewhere", "wrong_password"),  # of another network
        ("", "network", "no_credentials"),
        (None, None, "no_credentials"),
        ("pump", None, "no_credentials"),
        (":pump", "network", "bad_name"),
        ("esn:", "network", "bad_name"),
        ("x" * 129, "network", "bad_name"),
        ("a\0b", "network", "bad_name"),
        ("ü" * 65, "network", "bad_name"),
        ("x" * 128, "network", "serial:" + "x" * 128),
    ],
)
def test_who_may_connect_under_which_name(
    credentials: Credentials, user_name: str | None, password: str | None, outcome: str
) -> None:
    assert tried(credentials, user_name, password) == outcome


def test_a_network_without_a_credential_lets_only_its_devices_in(registry: Registry) -> None:
    registry.apply(RegistryChange("demo", 1, 2, networks=(Network("quay"),)))
    credentials = Credentials(registry, "quay")
    assert tried(credentials, "pump", "pump") == "serial:pump"
    assert tried(credentials, "stranger", "network") == "wrong_password"
    assert tried(credentials, "stranger", "") == "wrong_password"


def test_a_gateway_that_never_saw_the_cloud_lets_nobody_in() -> None:
    assert tried(Credentials(Registry("demo"), "quay"), "pump", "pump") == RefusalCode.NO_REGISTRY


def test_guessing_one_name_is_slow_and_disturbs_no_other(credentials: Credentials) -> None:
    for _ in range(GUESSES_PER_NAME_MAX):
        assert tried(credentials, "pump", "wrong") == "wrong_password"
    assert tried(credentials, "pump", "pump") == "too_many_guesses"
    assert tried(credentials, "plain", "network") == "serial:plain"
    assert tried(credentials, "pump", "pump", address="10.0.0.2") == "serial:pump"
    assert tried(credentials, "pump", "pump", now_s=GUESS_WINDOW_S) == "serial:pump"


def test_a_device_that_goes_on_with_an_old_password_costs_its_neighbours_nothing(credentials: Credentials) -> None:
    for _ in range(10 * GUESSES_PER_ADDRESS_MAX):
        tried(credentials, "pump", "old")
    assert tried(credentials, "stranger", "network") == "serial:stranger"


def test_guessing_the_networks_secret_under_many_names_is_slow_too(credentials: Credentials) -> None:
    for number in range(GUESSES_PER_ADDRESS_MAX):
        assert tried(credentials, f"stranger-{number}", "wrong") == "wrong_password"
    assert tried(credentials, "one-more", "network") == "too_many_guesses"
    assert tried(credentials, "pump", "pump") == "serial:pump"
    assert tried(credentials, "one-more", "network", address="10.0.0.2") == "serial:one-more"
    assert tried(credentials, "one-more", "network", now_s=GUESS_WINDOW_S) == "serial:one-more"


def test_what_is_remembered_of_guesses_is_bounded(credentials: Credentials) -> None:
    for number in range(WINDOWS_MAX):
        tried(credentials, "pump", "wrong", address=f"10.1.{number >> 8}.{number & 255}")
    assert len(credentials._windows) == WINDOWS_MAX


def test_a_grant_holds_until_its_secret_is_gone(registry: Registry, credentials: Credentials) -> None:
    verdict = credentials.check("pump", b"pump", address="a", now_s=0)
    assert isinstance(verdict, Grant)
    assert credentials.still_holds(verdict)
    assert digest("pump") not in repr(verdict)
    rotated = Device(1, "s", "pump", PUMP.aliases, None, (digest("new"), digest("pump")))
    registry.apply(RegistryChange("demo", 1, 2, devices=(rotated,)))
    assert credentials.still_holds(verdict)
    registry.apply(RegistryChange("demo", 2, 3, gone_devices=(1,)))
    assert not credentials.still_holds(verdict)
