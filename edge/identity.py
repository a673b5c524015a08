"""Who this gateway is: its key pair, and what it was told when it was enrolled. Two files in the data folder:

identity.key    the Ed25519 private key, PKCS #8 PEM, mode 0600; never leaves this machine
identity.json   project, gateway, addresses of the cloud; mode 0600
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edge.data_folder import write_whole
from protocols.errors import UNREADABLE
from sync.link.tokens import sign
from tidegate.console import UserError

KEY_FILE: Final = "identity.key"
FACTS_FILE: Final = "identity.json"


class Enrolment(msgspec.Struct, frozen=True):
    """What the cloud answered, and where it was."""

    project_id: str
    gateway_id: str
    cloud_url: str
    """Of the API, as given at enrolment: https://…"""
    link_url: str
    """wss://…"""


class Identity:
    """An enrolled gateway's key and facts."""

    def __init__(self, key: Ed25519PrivateKey, enrolment: Enrolment) -> None:
        self._key = key
        self.enrolment = enrolment

    def token(self, now_s: int) -> str:
        """A fresh credential for the link, made at this Unix second."""
        return sign(self._key, gateway_id=self.enrolment.gateway_id, project_id=self.enrolment.project_id, now_s=now_s)


def load_identity(data_dir: Path) -> Identity | None:
    """None if the gateway is not enrolled yet. Raises UserError for files that cannot be read."""
    enrolment = load_enrolment(data_dir)
    if enrolment is None:
        return None
    key = load_key(data_dir)
    if key is None:
        raise UserError(f"{data_dir / KEY_FILE} is missing", f"restore it, or remove {FACTS_FILE} and enrol again")
    return Identity(key, enrolment)


def load_enrolment(data_dir: Path) -> Enrolment | None:
    path = data_dir / FACTS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Enrolment)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "run as the user that enrolled it") from None
    except UNREADABLE as error:
        raise UserError(f"{path} is damaged: {error}", "remove it and enrol again") from None


def load_key(data_dir: Path) -> Ed25519PrivateKey | None:
    path = data_dir / KEY_FILE
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "run as the user that enrolled it") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} is damaged: {error}", f"remove it and {FACTS_FILE}, and enrol again") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} holds another kind of key", f"remove it and {FACTS_FILE}, and enrol again")
    return key


def make_key(data_dir: Path) -> Ed25519PrivateKey:
    """The key of the data folder; a new one if there is none."""
    key = load_key(data_dir)
    if key is None:
        key = Ed25519PrivateKey.generate()
        _write(data_dir / KEY_FILE, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def save_enrolment(data_dir: Path, enrolment: Enrolment) -> None:
    _write(data_dir / FACTS_FILE, msgspec.json.format(msgspec.json.encode(enrolment), indent=2) + b"\n")


def _write(path: Path, data: bytes) -> None:
    """Raises UserError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}", "choose a data folder that this user may write to"
        ) from None
