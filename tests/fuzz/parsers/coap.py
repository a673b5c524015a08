"""CoAP: messages, their options, and bodies put together of blocks."""

from __future__ import annotations

import itertools
from typing import Final

from edge.listeners.coap.answers import Answer
from edge.listeners.coap.core_links import links
from edge.listeners.coap.limits import UPLOADS_BYTES_MAX, UPLOADS_PER_SOURCE_MAX
from edge.listeners.coap.sources import Source
from edge.listeners.coap.uploads import Uploads
from protocols.coap.message import BadOptionError, Block, Message, check_options, decode, peek, uint
from protocols.coap.numbers import Code, Kind, Option, code_text
from protocols.errors import MalformedError
from protocols.limits import PAYLOAD_BYTES_MAX
from tests.fuzz.target import TAKEN, Parser, Stretch

KEY: Final = b"key=pump-secret"
TEMPLATES: Final = ("sensors/{serial}/up", "{serial}")


def post(
    *options: tuple[int, bytes], payload: bytes = b"21.5", kind: Kind = Kind.CONFIRMABLE, code: int = Code.POST
) -> bytes:
    found = ((int(Option.URI_PATH), b"pump"), (int(Option.URI_QUERY), KEY), *options)
    return Message(kind, code, 77, b"tk", tuple(sorted(found)), payload).encode()


def block(number: int, *, more: bool, exponent: int = 2) -> tuple[int, bytes]:
    return int(Option.BLOCK1), Block(number, more, exponent).encode()


MESSAGES: Final = (
    post(),
    post((Option.CONTENT_FORMAT, uint(50)), (Option.SIZE1, uint(70_000)), (Option.NO_RESPONSE, b"\x02")),
    post((Option.ECHO, b"e" * 40), (Option.REQUEST_TAG, b"tag"), (2048, b"x" * 300), kind=Kind.NON_CONFIRMABLE),
    post((Option.OBSERVE, b""), (Option.BLOCK2, b"\x06"), (Option.ACCEPT, b"("), payload=b"", code=Code.GET),
    post((Option.PROXY_URI, b"coap://x/y"), (Option.URI_HOST, b"h"), (Option.ETAG, b"1")),
    post((Option.OSCORE, b"\x09\x01\x02"), payload=b"sealed"),
    post(block(0, more=True), payload=bytes(64)),
    post(block(1, more=False), payload=bytes(17)),
    Message(Kind.CONFIRMABLE, Code.GET, 3, b"", ((11, b".well-known"), (11, b"core"), (15, b"rt=tidegate.*"))).encode(),
    b"\x40\x00\xff\xff",
    b"\x60\x00\xff\xff",
    b"\x70\x00\xff\xff",
)


def reads_message(data: bytes) -> str:
    head = peek(data)
    message = decode(data)
    assert decode(message.encode()) == message
    if message.kind == Kind.CONFIRMABLE:
        assert head == (message.code, message.message_id, message.token)
    code_text(message.code)
    refusal = ""
    for read in (
        lambda: check_options(message),
        lambda: [message.block(option) for option in (Option.BLOCK1, Option.BLOCK2)],
        lambda: [message.texts(option) for option in (Option.URI_PATH, Option.URI_QUERY)],
        lambda: [message.number(option) for option in Option],
        lambda: links(TEMPLATES, message.texts(Option.URI_QUERY)),
    ):
        try:
            read()
        except (MalformedError, BadOptionError) as error:
            refusal = type(error).__name__
    return refusal or TAKEN


def puts_together(data: bytes) -> str:
    """A stream of parts: a key, a block option of up to three bytes, and as many bytes of data as it says, or not."""
    uploads, source = Uploads(), Source(0.0, 0.0)
    said = iter(data)
    became = "refused"
    for now_s in itertools.count(0, 5):
        head = bytes(itertools.islice(said, 5))
        if len(head) < 5:
            break
        number = int.from_bytes(head[1:4], "big")
        try:
            part_of = Message(0, 2, 1, options=((int(Option.BLOCK1), uint(number)),)).block(Option.BLOCK1)
        except MalformedError:
            continue
        assert part_of is not None
        size = part_of.size if head[4] & 1 else head[4]
        size_option = head[4] << 10 if head[4] & 2 else None
        found = uploads.add(head[0] % 40, source, part_of, bytes(size), size_option, now_s)
        if isinstance(found, Answer):
            assert code_text(found.code)[0] in "245"
        else:
            assert len(found) <= PAYLOAD_BYTES_MAX
            became = TAKEN
        assert uploads._bytes <= UPLOADS_BYTES_MAX
        assert source.uploads == len(uploads) <= UPLOADS_PER_SOURCE_MAX
    uploads.forget(1e9)
    assert (len(uploads), uploads._bytes, source.uploads) == (0, 0, 0)
    return became


def part(key: int, number: int, *, more: bool, exponent: int = 6) -> bytes:
    return bytes((key,)) + (number << 4 | more << 3 | exponent).to_bytes(3, "big") + b"\x01"


PARSERS: Final = (
    Parser(
        "coap",
        reads_message,
        MESSAGES,
        refusals=(MalformedError,),
        stretches=(
            Stretch(b"\x40\x02\0\1", b"\x00"),
            Stretch(b"\x40\x02\0\1\xb4pump\xff", b"x"),
            Stretch(b"\x40\x02\0\1\xbe\xff\x00", b"x"),
        ),
        steps_per_byte=30,
    ),
    Parser(
        "coap:blocks",
        puts_together,
        (
            b"".join(part(1, number, more=number < 5) for number in range(6)),
            b"".join(part(key, number, more=number < 2) for number in range(3) for key in range(3)),
            part(1, 0, more=False),
            part(2, 0, more=True, exponent=0) + part(2, 1, more=True, exponent=0) + b"\x02\0\0\x20\x07",
        ),
        stretches=(
            Stretch(part(1, 0, more=True), part(1, 1, more=True)),
            Stretch(b"", b"".join(part(key, 0, more=True) for key in range(40))),
        ),
        steps_per_byte=30,
    ),
)
