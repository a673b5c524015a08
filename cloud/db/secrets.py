"""Secrets of devices, networks and enrolment tokens: random, shown once, kept as SHA-256. And the server's own."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

from cloud.db.database import Connection

SECRET_LETTERS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: nothing in it is taken for something else when it is typed by hand."""
SECRET_LENGTH: Final = 26
"""130 bits: a plain hash of it can be published."""
SECRETS_KEPT: Final = 2
"""The new one and the one before it, so that devices can be moved over without a gap."""
_SERVER_SECRET_BYTES: Final = 32


def new_secret() -> str:
    return "".join(secrets.choice(SECRET_LETTERS) for _ in range(SECRET_LENGTH))


def sha256_hex(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def with_secret(held: Sequence[str], sha256: str, keep_previous: bool) -> list[str]:
    """The digests to keep once `sha256` is the newest."""
    return [sha256, *held][: SECRETS_KEPT if keep_previous else 1]


async def server_secret(conn: Connection, name: str) -> bytes:
    """32 random bytes, made at the first call and the same for every process ever after."""
    await conn.execute(
        "INSERT INTO server_secret (name, secret) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        name,
        secrets.token_bytes(_SERVER_SECRET_BYTES),
    )
    found: bytes = await conn.fetchval("SELECT secret FROM server_secret WHERE name = $1", name)
    return found
