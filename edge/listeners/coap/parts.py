"""Answers that are longer than one message, in blocks (Block2, RFC 7959, section 2.4)."""

from __future__ import annotations

from edge.listeners.coap import answers
from edge.listeners.coap.answers import Answer
from edge.listeners.coap.limits import BLOCK_BYTES_MAX
from protocols.coap.message import Block, uint
from protocols.coap.numbers import Option


def part_of(answer: Answer, block: Block | None, block_bytes_max: int = BLOCK_BYTES_MAX) -> Answer:
    """The block that is asked for, or a smaller one that begins there, of an answer that may be longer than one; None:
    the first. `block_bytes_max`: a power of two."""
    exponent = (block_bytes_max >> 4).bit_length() - 1
    block = block or Block(0, False, exponent)
    if block.exponent > exponent:
        block = Block(block.number << block.exponent - exponent, False, exponent)
    body = answer.payload
    if block.start == 0 and len(body) <= block.size:
        return answer
    if block.start >= len(body):
        return answers.malformed(f"block {block.number} of {block.size} bytes is beyond the {len(body)} that there are")
    end = block.start + block.size
    told = Block(block.number, end < len(body), block.exponent)
    options = [*answer.options, (int(Option.BLOCK2), told.encode())]
    if block.number == 0:
        options.append((int(Option.SIZE2), uint(len(body))))
    return Answer(answer.code, body[block.start : end], tuple(sorted(options)))
