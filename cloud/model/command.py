"""How a command stands: what is known of it gives way only to what says more.

    pending  ─▶ sent ─▶ expired ─▶ failed ─▶ delivered ─▶ answered (acknowledged, or failed by the device's own word)

What a gateway or the cloud tells, a *report*, moves a command forward in this order, and never back. So reports may be
told twice, late, or in any order, and the outcome is the same. *expired* and *failed* say that the command was not
delivered as far as anybody knew; that it was delivered after all, as another gateway or the device itself says, counts
for more. The first answer of the device is the last word.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.messages import CommandState

_KNOWN: Final = {
    CommandState.PENDING: 0,
    CommandState.SENT: 1,
    CommandState.EXPIRED: 2,
    CommandState.FAILED: 3,
    CommandState.DELIVERED: 4,
    CommandState.ACKNOWLEDGED: 4,
}
"""How much is known; as a report *acknowledged* says no more than *delivered*: a device's answer is one of its own."""


class Standing(msgspec.Struct, frozen=True):
    state: CommandState = CommandState.PENDING
    reason: str = ""
    """Why it failed or expired; else empty, or what there is to say."""
    time: int = 0
    """When it came to that, Unix milliseconds."""
    answered: bool = False
    """The device itself has said what became of it."""


class Answer(msgspec.Struct, frozen=True):
    """What a device says of a command, under the name that it spoke by."""

    command_id: str
    network_id: str
    alias_key: str
    alias: str
    payload: bytes
    refusal: str | None
    """Why it did not do it; None: it did."""
    time: int


def reported(standing: Standing, state: CommandState, reason: str, time: int) -> Standing:
    """After a report; the same where it says no more than what is known."""
    if standing.answered or _KNOWN[state] <= _KNOWN[standing.state]:
        return standing
    if state is CommandState.ACKNOWLEDGED:
        state = CommandState.DELIVERED
    return Standing(state, reason, time)


def answered(standing: Standing, refusal: str | None, time: int) -> Standing:
    """After the device's answer. `refusal`: why it did not do what it was told; None: it did."""
    if standing.answered:
        return standing
    if refusal is None:
        return Standing(CommandState.ACKNOWLEDGED, "", time, answered=True)
    return Standing(CommandState.FAILED, refusal, time, answered=True)
