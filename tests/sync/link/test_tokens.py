from __future__ import annotations

import base64

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sync.link.tokens import (
    AUDIENCE,
    LEEWAY_S,
    LIFE_S,
    TOKEN_BYTES_MAX,
    ExpiredTokenError,
    MalformedTokenError,
    TokenError,
    WrongKeyError,
    claimed,
    public_bytes,
    public_key,
    sign,
    verify,
)

NOW_S = 1_700_000_000
KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()
KEYS = [KEY.public_key()]


def token(now_s: int = NOW_S) -> str:
    return sign(KEY, gateway_id="quay-1", project_id="demo", now_s=now_s)


def forged(key: object = KEY, algorithm: str = "EdDSA", **claims: object) -> str:
    payload = {"sub": "quay-1", "project": "demo", "iat": NOW_S, "exp": NOW_S + LIFE_S, "aud": AUDIENCE, "jti": "1"}
    changed = {name: value for name, value in {**payload, **claims}.items() if value is not None}
    return jwt.encode(changed, key, algorithm=algorithm)  # type: ignore[arg-type]


def test_a_token_names_its_gateway_and_is_different_each_time() -> None:
    claims = verify(token(), KEYS, now_s=NOW_S)
    assert (claims.gateway_id, claims.project_id) == ("quay-1", "demo")
    assert claims == claimed(forged(jti=claims.token_id))
    assert token() != token()


def test_either_key_serves_while_one_is_rotated() -> None:
    assert verify(token(), [OTHER.public_key(), KEY.public_key()], now_s=NOW_S).gateway_id == "quay-1"


@pytest.mark.parametrize("keys", [[], [OTHER.public_key()]])
def test_another_key_lets_nobody_in(keys: list[object]) -> None:
    with pytest.raises(WrongKeyError, match="quay-1"):
        verify(token(), keys, now_s=NOW_S)  # type: ignore[arg-type]


@pytest.mark.parametrize("off_s", [-LEEWAY_S, 0, LIFE_S, LIFE_S + LEEWAY_S])
def test_a_token_holds_for_its_time_and_some_leeway(off_s: int) -> None:
    verify(token(), KEYS, now_s=NOW_S + off_s)


@pytest.mark.parametrize("off_s", [-LEEWAY_S - 1, LIFE_S + LEEWAY_S + 1, 10**9, -NOW_S])
def test_outside_its_time_it_is_expired(off_s: int) -> None:
    with pytest.raises(ExpiredTokenError):
        verify(token(), KEYS, now_s=NOW_S + off_s)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        "a.b.c",
        "x" * (TOKEN_BYTES_MAX + 1),
        forged(aud="another"),
        forged(aud=None),
        forged(sub=None),
        forged(sub=""),
        forged(project=None),
        forged(jti=None),
        forged(exp=None),
        forged(exp="soon"),
        forged(exp=NOW_S + 10**9),
        forged(exp=NOW_S),
        forged(iat=None),
        forged(key="shared secret of thirty-two bytes!!", algorithm="HS256"),
        forged(key=base64.b64encode(public_bytes(KEY)).decode(), algorithm="HS256"),
        forged(key=None, algorithm="none"),
    ],
)
def test_what_is_no_token_of_ours_is_malformed(bad: str) -> None:
    with pytest.raises(MalformedTokenError):
        verify(bad, KEYS, now_s=NOW_S)


def test_a_turned_character_is_not_let_in() -> None:
    made = token()
    for at in range(0, len(made) - 1, 7):  # the last character holds bits that mean nothing
        other = "A" if made[at] != "A" else "B"
        with pytest.raises(TokenError):
            verify(made[:at] + other + made[at + 1 :], KEYS, now_s=NOW_S)


def test_a_public_key_is_32_bytes() -> None:
    assert public_key(public_bytes(KEY)) == KEY.public_key()
    with pytest.raises(ValueError):
        public_key(bytes(31))
