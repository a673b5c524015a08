"""Passwords of people and secrets of devices."""

from __future__ import annotations

import re

from cloud.db.passwords import PASSWORD_WORDS, WORDS, hashed, matches, new_password
from cloud.db.secrets import SECRET_LENGTH, SECRET_LETTERS, new_secret, sha256_hex, with_secret


def test_passwords_are_words_of_the_list_and_a_number() -> None:
    assert len(set(WORDS)) == 256
    for words in (2, PASSWORD_WORDS):
        *parts, number = new_password(words).split("-")
        assert len(parts) == words
        assert set(parts) <= set(WORDS)
        assert re.fullmatch(r"[1-9]\d", number)
    assert new_password() != new_password()


async def test_only_the_password_that_was_kept_matches() -> None:
    kept = await hashed("gull-harbour-41")
    assert "gull" not in kept
    assert await matches("gull-harbour-41", kept)
    assert not await matches("gull-harbour-42", kept)
    assert not await matches("gull-harbour-41", None)


def test_a_secret_has_130_bits_and_is_easily_typed() -> None:
    secret = new_secret()
    assert len(secret) == SECRET_LENGTH
    assert set(secret) <= set(SECRET_LETTERS)
    assert len(SECRET_LETTERS) ** SECRET_LENGTH == 2**130
    assert secret != new_secret()
    assert sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_two_secrets_are_valid_while_one_is_rotated() -> None:
    assert with_secret([], "a", True) == ["a"]
    assert with_secret(["a"], "b", True) == ["b", "a"]
    assert with_secret(["b", "a"], "c", True) == ["c", "b"]
    assert with_secret(["b", "a"], "c", False) == ["c"]
