"""Lists: {count, items, next}, by cursor: rows that come or go meanwhile make no other row come twice or be missed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from fastapi import Query, Response
from pydantic import BaseModel, Field

from cloud.api.problems import invalid

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
"""Items of one page: some 100 kB of JSON and a few milliseconds."""
CURSOR_CHARACTERS_MAX: Final = 400
"""A cursor holds the key of one row."""

Item = TypeVar("Item")
Row = TypeVar("Row")

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most items to give.")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=CURSOR_CHARACTERS_MAX, description="Where to go on: `next` of the page before. Absent: the start."
    ),
]


class Page(BaseModel, Generic[Item]):
    count: int = Field(description="How many items this page has.", examples=[2])
    items: list[Item]
    next: str | None = Field(description="The `cursor` of the next page; null: this is the last.", examples=[None])


def make_page(rows: Sequence[Row], limit: int, key: Callable[[Row], Any], item: Callable[[Row], Item]) -> Page[Item]:
    """A page of up to `limit` of the rows; ask the database for `limit + 1`, so that it is known whether more come."""
    shown = rows[:limit]
    following = encode_cursor(key(shown[-1])) if len(rows) > limit else None
    return Page(count=len(shown), items=[item(row) for row in shown], next=following)


def raw_page(rows: Sequence[Row], limit: int, key: Callable[[Row], Any], item: Callable[[Row], Any]) -> Response:
    """The same for rows that hold JSON already: `item` gives what msgspec encodes, with msgspec.Raw in it."""
    shown = rows[:limit]
    following = encode_cursor(key(shown[-1])) if len(rows) > limit else None
    return raw_json({"count": len(shown), "items": [item(row) for row in shown], "next": following})


def text_page(rows: Sequence[Row], limit: int, key: Callable[[Row], Any], item: Callable[[Row], str]) -> Response:
    """The same for thousands of rows: `item` gives JSON."""
    shown = rows[:limit]
    following = encode_cursor(key(shown[-1])) if len(rows) > limit else None
    items = msgspec.Raw(f"[{','.join(map(item, shown))}]".encode())
    return raw_json({"count": len(shown), "items": items, "next": following})


def raw_json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def encode_cursor(key: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


KeyT = TypeVar("KeyT")


def decode_cursor(cursor: str | None, kind: type[KeyT]) -> KeyT | None:
    """The key that `encode_cursor` was given. Raises a problem for anything else."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=kind)
    except (UnicodeEncodeError, binascii.Error, msgspec.MsgspecError, UnicodeDecodeError):
        key = None
    if key is None or not all(map(_has_a_place, key if isinstance(key, tuple) else (key,))):
        raise invalid("cursor", "not one of this list's", remedy="take `next` of the page before, or leave it out")
    return key


def _has_a_place(part: object) -> bool:
    """In a column of PostgreSQL's: bigint, or text without U+0000."""
    if isinstance(part, str):
        return "\0" not in part
    return not isinstance(part, int) or -(2**63) <= part < 2**63
