"""Who may connect to a network's listener: by the credentials in the gateway's replica of the registry.

A user name is an alias under the network's alias key (`5551212`), or names its alias key (`esn:5551212`); an alias that
holds a colon itself is written with its key. So a name means the same device before and after it is known.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from protocols.limits import NAME_BYTES_MAX
from sync.registry import Device, Network, Registry

GUESS_WINDOW_S: Final = 60.0
"""Wrong passwords are counted for this long."""

GUESSES_PER_NAME_MAX: Final = 5
"""Wrong passwords for one name from one address in a window; then none is looked at until the window ends. A device
with an old password goes on trying and must not cost its neighbours behind the same address theirs, so such further
tries are not counted against the address."""

GUESSES_PER_ADDRESS_MAX: Final = 60
"""Wrong passwords from one address in a window, whatever the names; then names that the registry gives no credential of
their own wait, because they all try the network's one secret. Devices with their own credential go on."""

WINDOWS_MAX: Final = 4096
"""Addresses and names that are counted at the same time; the oldest window makes room. About 1 MB."""


CERTIFIED: Final = "certificate"
"""In the place of a secret's digest, which it cannot be."""


class RefusalCode(enum.StrEnum):
    """Why a login was refused; counted, and shown in the listener's refusals."""

    NO_CREDENTIALS = "no_credentials"
    BAD_NAME = "bad_name"
    WRONG_PASSWORD = "wrong_password"
    TOO_MANY_GUESSES = "too_many_guesses"
    NO_REGISTRY = "no_registry"
    """The gateway has not seen the cloud yet: nobody can be told from anybody. Try later."""


class Refusal(msgspec.Struct, frozen=True):
    code: RefusalCode
    detail: str


class Grant(msgspec.Struct, frozen=True):
    """The name that a connection's records carry, and the secret that let it in."""

    alias_key: str
    alias: str
    secret_sha256: str

    def __repr__(self) -> str:
        return f"Grant(alias_key={self.alias_key!r}, alias={self.alias!r})"


class _Window(msgspec.Struct):
    ends_s: float
    guesses: int = 0


class Credentials:
    """Checks logins for one network."""

    def __init__(self, registry: Registry, network_id: str) -> None:
        self._registry = registry
        self._network_id = network_id
        self._windows: dict[tuple[str, str | None], _Window] = {}

    def check(self, user_name: str | None, password: bytes | None, *, address: str, now_s: float) -> Grant | Refusal:
        """`address`: the peer's, without its port; `now_s`: a clock that never goes back."""
        network = self._registry.networks.get(self._network_id)
        if network is None:
            detail = f"the registry of this gateway does not hold network {self._network_id!r}, or not yet"
            return Refusal(RefusalCode.NO_REGISTRY, detail)
        if not user_name or password is None:
            return Refusal(RefusalCode.NO_CREDENTIALS, "no user name or password")
        name = _split(user_name, network)
        if name is None:
            detail = f"{user_name[:NAME_BYTES_MAX]!r} is no `alias` or `key:alias` of up to {NAME_BYTES_MAX} bytes each"
            return Refusal(RefusalCode.BAD_NAME, detail)
        by_name, by_address = (address, user_name), (address, None)
        if self._guesses(by_name, now_s) >= GUESSES_PER_NAME_MAX:
            return Refusal(RefusalCode.TOO_MANY_GUESSES, f"too many wrong passwords for this name from {address}")
        device = self._registry.device(network.id, *name)
        if not _own(device) and self._guesses(by_address, now_s) >= GUESSES_PER_ADDRESS_MAX:
            return Refusal(RefusalCode.TOO_MANY_GUESSES, f"too many wrong passwords from {address}")
        secret = hashlib.sha256(password).hexdigest()
        if _holds(secret, _allowed(device, network)):
            return Grant(*name, secret)
        for key in (by_name, by_address):
            self._count(key, now_s)
        return Refusal(RefusalCode.WRONG_PASSWORD, "wrong password, or no device of this name")

    def certified(self, user_name: str) -> Grant | Refusal:
        """Whoever a certificate names, which an authority of the listener signed: that is its credential."""
        network = self._registry.networks.get(self._network_id)
        if network is None:
            detail = f"the registry of this gateway does not hold network {self._network_id!r}, or not yet"
            return Refusal(RefusalCode.NO_REGISTRY, detail)
        name = _split(user_name, network)
        if name is None:
            detail = f"{user_name[:NAME_BYTES_MAX]!r}, of the certificate, is no `alias` or `key:alias`"
            return Refusal(RefusalCode.BAD_NAME, detail)
        return Grant(*name, CERTIFIED)

    def still_holds(self, grant: Grant) -> bool:
        """Whether the registry, as it is now, would let the same secret in again."""
        network = self._registry.networks.get(self._network_id)
        if network is None:
            return False
        if grant.secret_sha256 == CERTIFIED:
            return True
        device = self._registry.device(network.id, grant.alias_key, grant.alias)
        return _holds(grant.secret_sha256, _allowed(device, network))

    def _guesses(self, key: tuple[str, str | None], now_s: float) -> int:
        window = self._windows.get(key)
        return 0 if window is None or window.ends_s <= now_s else window.guesses

    def _count(self, key: tuple[str, str | None], now_s: float) -> None:
        window = self._windows.get(key)
        if window is None or window.ends_s <= now_s:
            self._windows.pop(key, None)  # so that the order of the dictionary is that of the windows
            if len(self._windows) >= WINDOWS_MAX:
                del self._windows[next(iter(self._windows))]
            window = self._windows[key] = _Window(now_s + GUESS_WINDOW_S)
        window.guesses += 1


def _split(user_name: str, network: Network) -> tuple[str, str] | None:
    """Alias key and alias; None for a name that cannot be one: also U+0000 no database text can hold."""
    alias_key, colon, alias = user_name.partition(":")
    if not colon:
        alias_key, alias = network.alias_key, user_name
    if "\0" in user_name or not all(0 < len(part.encode()) <= NAME_BYTES_MAX for part in (alias_key, alias)):
        return None
    return alias_key, alias


def _own(device: Device | None) -> bool:
    return device is not None and bool(device.secret_sha256)


def _allowed(device: Device | None, network: Network) -> Sequence[str]:
    """A device's own credential, where it has one, is the only one for its name."""
    if device is not None and device.secret_sha256:
        return device.secret_sha256
    return network.secret_sha256


def _holds(secret: str, allowed: Sequence[str]) -> bool:
    """Compares with all of them, each in constant time."""
    matched = False
    for digest in allowed:
        matched |= hmac.compare_digest(secret, digest.lower())
    return matched
