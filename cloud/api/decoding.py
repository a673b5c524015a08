"""Trying a codec on a payload: what it gives, or where and why it does not."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from cloud.api.codec import Codec, Word, spec_of
from cloud.api.fields import Body
from cloud.api.pages import raw_json
from cloud.api.problems import invalid
from protocols.codecs import CODECS, CodecSpec, decoder_of
from protocols.codecs.trial import payload_of, try_payload
from protocols.limits import PAYLOAD_BYTES_MAX


class CodecTry(Body):
    codec: Codec | None = Field(
        default=None, description="The codec to try, before it is saved; absent: the network's own."
    )

    def spec(self, own: CodecSpec) -> CodecSpec:
        return own if self.codec is None else spec_of(self.codec)


class Trying(CodecTry):
    payload: str = Field(
        max_length=4 * PAYLOAD_BYTES_MAX,
        description="Text, or bytes as `hex:01ff` or `base64:Af8=`.",
        examples=['{"temperature": 21.5}'],
    )
    hint: Word = Field(
        default="",
        description="What a listener says of the payload, as a codec's name: it counts before the network's codec.",
    )

    def bytes(self) -> bytes:
        """Raises a problem."""
        if self.hint and self.hint not in CODECS:
            raise invalid("hint", f"there is no codec {self.hint[:40]!r}", remedy=f"known are: {', '.join(CODECS)}")
        try:
            payload = payload_of(self.payload)
        except ValueError as error:
            raise invalid("payload", str(error)) from None
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise invalid("payload", f"{len(payload):,} bytes", limit=PAYLOAD_BYTES_MAX)
        return payload


class DecodedMessage(BaseModel):
    index: int = Field(description="Which message of the payload, from 0.", examples=[0])
    data: dict[str, Any] = Field(examples=[{"temperature": 21.5}])
    alias: str | None = Field(description="The device that the payload names.", examples=[None])
    key: list[Any] | None = Field(description="The message key.", examples=[None])
    time: int | None = Field(description="The device's, Unix milliseconds.", examples=[None])
    received_plus_ms: int | None = Field(
        description="Where its time counts from when the payload was received: so much later.", examples=[None]
    )


class AroundBytes(BaseModel):
    """The bytes around the one that is wrong."""

    start: int = Field(description="The first of them.", examples=[0])
    hex: str = Field(examples=["7b 22 61"])
    text: str = Field(description="What can be printed of them.", examples=['{"a'])


class DecodingError(BaseModel):
    code: str = Field(examples=["undecodable"])
    detail: str = Field(examples=["not JSON: Input data was truncated"])
    offset: int | None = Field(description="The byte of the payload, from 0.", examples=[3])
    path: str = Field(description="The place in what the payload holds.", examples=[""])
    around: AroundBytes | None


class Decoding(BaseModel):
    messages: list[DecodedMessage]
    units: dict[str, str] = Field(description="Attribute to unit.", examples=[{}])
    error: DecodingError | None = Field(description="null: it decodes.")


def tried(spec: CodecSpec, hint: str, payload: bytes) -> Response:
    """A Decoding."""
    return raw_json(try_payload(decoder_of(spec, hint), payload))
