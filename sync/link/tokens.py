"""The gateway's credential on the link: JSON Web Tokens (RFC 7519), signed with Ed25519 (EdDSA, RFC 8037).

The private key never leaves the gateway. A token is made for one attempt to connect and lives for minutes, so that one
that leaks somewhere is soon worth nothing; TLS keeps it from strangers on the way. Times come as arguments.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE: Final = "tidegate-link"
ALGORITHM: Final = "EdDSA"

LIFE_S: Final = 5 * 60
"""A slow handshake and some difference of the clocks, no more."""

LEEWAY_S: Final = 60
"""The two ends' clocks may differ by this much, either way, and it is not worth a word."""

TOKEN_BYTES_MAX: Final = 4096
"""Ten times what a token needs; a longer header is hostile."""


class TokenError(Exception):
    """Do not let it in; `code` is stable, and the HTTP answer is 401."""

    code = "token-malformed"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class MalformedTokenError(TokenError):
    """Not a token of ours at all."""


class WrongKeyError(TokenError):
    """Signed by none of the gateway's keys: it was enrolled anew elsewhere, or its key was withdrawn."""

    code = "token-wrong-key"


class ExpiredTokenError(TokenError):
    """Its time has passed or has not come: an old token, or a wrong clock. The answer tells the cloud's time."""

    code = "token-expired"


class Claims(msgspec.Struct, frozen=True):
    """Who a token says it is from. Times in Unix seconds."""

    gateway_id: str = msgspec.field(name="sub")
    project_id: str = msgspec.field(name="project")
    issued_s: int = msgspec.field(name="iat")
    expires_s: int = msgspec.field(name="exp")
    token_id: str = msgspec.field(name="jti")


def sign(key: Ed25519PrivateKey, *, gateway_id: str, project_id: str, now_s: int) -> str:
    payload = {
        "sub": gateway_id,
        "project": project_id,
        "iat": now_s,
        "exp": now_s + LIFE_S,
        "aud": AUDIENCE,
        "jti": secrets.token_hex(16),
    }
    return jwt.encode(payload, key, algorithm=ALGORITHM)


def claimed(token: str) -> Claims:
    """What a token claims, not verified: only to find the gateway's keys. Raises MalformedTokenError."""
    if len(token) > TOKEN_BYTES_MAX:
        raise MalformedTokenError(f"longer than {TOKEN_BYTES_MAX} bytes")
    try:
        return _claims(jwt.decode(token, options={"verify_signature": False}))
    except jwt.InvalidTokenError as error:
        raise MalformedTokenError(str(error)) from None


def verify(token: str, public_keys: Iterable[Ed25519PublicKey], *, now_s: int) -> Claims:
    """Who the token is from, if one of `public_keys` (those of the gateway that it claims to be from: several while one
    is rotated) signed it and it is of now. Raises a TokenError."""
    claims = claimed(token)
    for key in public_keys:
        try:
            jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                # The times are compared below, with the clock that was given; PyJWT would use its own.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.InvalidTokenError as error:
            raise MalformedTokenError(str(error)) from None
        _check_times(claims, now_s)
        return claims
    raise WrongKeyError(f"none of the keys of gateway {claims.gateway_id} signed it")


def public_bytes(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """The 32 bytes of the public key: what an enrolment carries and the cloud keeps."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_key(data: bytes) -> Ed25519PublicKey:
    """Raises ValueError unless `data` is the 32 bytes of a key."""
    return Ed25519PublicKey.from_public_bytes(data)


def _claims(payload: object) -> Claims:
    try:
        claims = msgspec.convert(payload, Claims)
    except msgspec.ValidationError as error:
        raise MalformedTokenError(f"claims: {error}") from None
    if not claims.gateway_id or not claims.project_id:
        raise MalformedTokenError("claims: gateway or project is empty")
    return claims


def _check_times(claims: Claims, now_s: int) -> None:
    if not 0 < claims.expires_s - claims.issued_s <= LIFE_S:
        raise MalformedTokenError(f"lives for {claims.expires_s - claims.issued_s} s; allowed are {LIFE_S}")
    if now_s > claims.expires_s + LEEWAY_S:
        raise ExpiredTokenError(f"expired {now_s - claims.expires_s} s ago")
    if now_s < claims.issued_s - LEEWAY_S:
        raise ExpiredTokenError(f"made {claims.issued_s - now_s} s in the future")
