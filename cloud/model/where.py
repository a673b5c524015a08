"""*Where is my message?* What is stored of it, told as a place, since when it is there, and what to do next.

Pure over facts, which cloud/db/where.py reads in one moment. A record has one fate at a time, and the hops' ranges say
how far it has come; what was decided about it there lies in history, inbox, rejects, dead letters or gaps. Where it has
not come at all, its gateway's last word is what is known.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from cloud.model.gaps import FATE_OF
from cloud.model.route import next_topic
from cloud.model.standing import GatewayStanding
from cloud.model.traces import Dead, DeviceFacts, KeyedFacts, RecordFacts, Rejected, Row, Source, Waiting
from cloud.topics import DEFAULT_PROCESSOR, PROCESSOR, ROUTABLE, TRANSPONDER, WRITER
from protocols.ids import EPOCH_END, SEQ_END, RecordName, record_of
from protocols.messages import Gap, GapKind
from protocols.shipment import CLOCK_CORRECTED, CLOCK_UNSURE, KEYED, LATE, TIME_REPLACED
from sync.link.frames import RefusedSample, Span, Standing
from sync.link.limits import SPANS_MAX

STATES: Final = (
    "log", "in-flight", "missing", "stream", "inbox", "replay", "stopped", "repeated", "rejected", "dead", "stored",
    "evicted", "damaged", "refused", "nothing", "unknown",
)  # fmt: skip
"""What a place's `state` may be, in about the order of the way."""
AROUND_MS: Final = 500
"""How far a message that was asked for by its time may be from it: half of what people read off a clock."""


class Place(msgspec.Struct, frozen=True):
    """Where a message is."""

    state: str
    text: str
    """A sentence."""
    since_time: int | None = None
    """Unix milliseconds: since when it is there, as far as it is stored (for what lies in the databases, when the
    gateway received it); None: not known."""
    next: str = ""
    """What to do, or what happens next; empty: nothing."""
    certain: bool = True
    """False: it may be there; nothing tells it from others of the same time."""
    facts: dict[str, Any] = {}


def asked_id(text: str) -> RecordName | bytes:
    """A message's id (UUID) or a record (epoch in hexadecimal/number), as the API shows them; the first message of a
    record. Bytes: the id derives from a message key. Raises ValueError."""
    epoch, slash, seq = text.strip().partition("/")
    if slash:
        if not re.fullmatch("[0-9a-f]{1,16}", epoch.lower()) or not re.fullmatch("[0-9]{1,13}", seq):
            raise ValueError(f"{text!r} is no record")
        name = RecordName(int(epoch, 16), int(seq), 0)
        if name.epoch >= EPOCH_END or name.seq >= SEQ_END:
            raise ValueError(f"{text!r} is no record")
        return name
    message_id = uuid.UUID(epoch).bytes
    return record_of(message_id) or message_id


def of_record(facts: RecordFacts) -> list[Place]:
    """One place for each message that is known of the record; one at least."""
    places = [_stored(row) for row in facts.rows] + [_waiting(message) for message in facts.waiting]
    places += [_rejected(record) for record in facts.rejected] + [_dead(letter) for letter in facts.dead]
    if places:
        return places
    return [_on_its_way(facts)]


def of_key(facts: KeyedFacts) -> list[Place]:
    places = [_stored(row) for row in facts.rows] + [_waiting(message) for message in facts.waiting]
    if places:
        return places
    if facts.taken_ms is not None:
        text = "it was stored, and is in history no more"
        return [Place("unknown", text, next="nothing brings it back", facts={"event_time": facts.taken_ms})]
    text = "no message with this key has been decoded here; which record carries it is not known before that"
    hint = "ask by device and time, which looks at the gateways' logs, the streams, gaps and what was refused"
    return [Place("unknown", text, next=hint)]


def of_device(facts: DeviceFacts) -> list[Place]:
    """What is certain; if that is nothing, what may be, the likeliest first."""
    places = [_stored(row) for row in _nearest(facts.rows, facts.time_ms)]
    places += [_waiting(message) for message in facts.waiting] + [_rejected(record) for record in facts.rejected]
    places += [_refused(gateway_id, sample) for gateway_id, sample in facts.refused]
    if places:
        return places
    if facts.network_known:
        return [*_maybe(facts), _not_here(facts)]
    text = f"there is no network {facts.name[0]!r} in this project, so no record of it either"
    return [Place("unknown", text, next="check the name: GET /api/v1/networks lists those that there are")]


def _nearest(rows: Sequence[Row], time_ms: int) -> Sequence[Row]:
    """Those that have this very time, if there are any; else all that were found near it."""
    exact = [row for row in rows if time_ms in (row.event_time, row.time, row.received_time)]
    return exact or sorted(rows, key=lambda row: abs(row.event_time - time_ms))


def _stored(row: Row) -> Place:
    carrier = record_of(row.record or row.id)
    facts: dict[str, Any] = {
        "device": row.device_id,
        "id": str(uuid.UUID(bytes=row.id)),
        "event_time": row.event_time,
        "time": row.time,
        "received_time": row.received_time,
        "late": bool(row.flags & LATE),
        "time_replaced": bool(row.flags & TIME_REPLACED),
        "clock": clock_of(row.flags),
        "time_error_ms": row.time_error_ms,
        "keyed": bool(row.flags & KEYED),
    }
    if carrier is not None:
        facts["record"] = f"{carrier.epoch:016x}/{carrier.seq}"
    again = "; were it to come again, it would not be stored twice" if row.flags & KEYED else ""
    text = f"it is in the history of device {row.device_id}{again}"
    return Place("stored", text, row.received_time, f"GET /api/v1/devices/{row.device_id}/history", facts=facts)


def clock_of(flags: int) -> str:
    """What the gateway's clock was worth, by a row's flags."""
    return "corrected" if flags & CLOCK_CORRECTED else "unsure" if flags & CLOCK_UNSURE else "synchronized"


def _waiting(message: Waiting) -> Place:
    name = ":".join((message.network_id, message.alias_key, message.alias))
    facts = {"name": name, "id": str(uuid.UUID(bytes=message.id)), "event_time": message.event_time}
    if message.numbered or message.device_id is not None:
        text = f"it left the inbox for the writer: device {message.device_id or ''} has the alias {name} now"
        hint = "it is stored within seconds; if not, see that the services replay and transponder run"
        return Place("replay", text, message.received_time, hint, facts=facts)
    text = f"it waits in the inbox: no device has the alias {name}"
    hint = "create the device (POST /api/v1/devices) or give one this alias: its messages are stored by themselves"
    return Place("inbox", text, message.received_time, hint, facts=facts)


def _rejected(record: Rejected) -> Place:
    name = ":".join((record.network_id, record.alias_key, record.alias))
    text = f"its record from {name} does not decode: {record.detail}"
    hint = "its bytes are kept; mend the network's codec, and decode it again (tidegate-cloud rejects replay)"
    return Place("rejected", text, record.received_time, hint, facts={"reject": record.seq, "code": record.code})


def _dead(letter: Dead) -> Place:
    text = f"the service {letter.hop} failed on it for good: {letter.detail}"
    hint = "it is kept, as it came; once what it failed on is mended, replay it (POST /api/v1/dead-letters/replay)"
    return Place("dead", text, letter.created_ms, hint, facts={"dead_letter": letter.seq, "hop": letter.hop})


def _refused(gateway_id: str, sample: RefusedSample) -> Place:
    text = f"gateway {gateway_id} refused it before its log: {sample.code}"
    hint = f"see `tidegate-edge tail --rejected` at {gateway_id}; a device that got no acknowledgement may send again"
    return Place("refused", text, sample.at_ms, hint, facts={"gateway": gateway_id, "code": sample.code})


def _lost(gateway_id: str, gap: Gap, *, about: bool = False) -> Place:
    """`about`: of records of that time, this one perhaps among them. Nobody can say what was in a tail."""
    certain = not about and gap.kind is not GapKind.TAIL
    why = {
        GapKind.EVICTED: "its log was full, and gave up the oldest records of the lowest priority",
        GapKind.DAMAGED: "its disk does not give the record back",
        GapKind.TAIL: "the end of a log could not be read after a crash; it may have been in it",
    }[gap.kind]
    hint = {
        GapKind.EVICTED: "give the log more room (log.max_bytes), or mend the link sooner; a device may have kept it",
        GapKind.DAMAGED: "see to the disk of the gateway; a device may have kept it",
        GapKind.TAIL: "nothing that was acknowledged is in it, unless the disk failed; a device may have kept it",
    }[gap.kind]
    state = "damaged" if gap.kind is GapKind.TAIL else FATE_OF[gap.kind]
    facts = {"gateway": gateway_id, "kind": gap.kind.value, "epoch": f"{gap.epoch:016x}", "first_seq": gap.first_seq}
    text = f"gateway {gateway_id} {'has' if certain else 'may have'} lost it: {why}"
    return Place(state, text, gap.noticed_ms or None, hint, certain, {**facts, "end_seq": gap.end_seq})


def _on_its_way(facts: RecordFacts) -> Place:
    """A record of which nothing is stored but how far it has come."""
    source = facts.source
    if source is None:
        text = "no gateway of this project, nor HTTP ingest, has told of such a record"
        hint = "check the id; a gateway that is not connected tells of its log once it is (tidegate-edge status there)"
        return Place("unknown", text, next=hint)
    shown = {"source": source.kind, "gateway": source.gateway_id}
    if facts.written:
        return _settled(facts)
    if facts.processed:
        text = f"it was decoded, and waits in the stream {WRITER} for the {TRANSPONDER}"
        return Place("stream", text, next=_runs(TRANSPONDER), facts={**shown, "topic": WRITER, "hop": TRANSPONDER})
    if facts.received:
        text = f"it was accepted from {source}, and waits in the stream {DEFAULT_PROCESSOR} for the {PROCESSOR}"
        facts_shown = {**shown, "topic": DEFAULT_PROCESSOR, "hop": PROCESSOR}
        return Place("stream", text, next=_runs(PROCESSOR), facts=facts_shown)
    lost = _lost(source.gateway_id, facts.gap) if facts.gap is not None and source.gateway_id is not None else None
    if lost is not None and lost.certain:
        return lost
    place = _at_gateway(facts.name, source, facts.gateway)
    return lost if lost is not None and place.state in ("unknown", "missing") else place


def _runs(service: str) -> str:
    return f"it goes on within seconds; if not, see that the service {service} runs (tidegate-cloud run {service})"


def _settled(facts: RecordFacts) -> Place:
    """All hops are done with it, and it left no row: what its epoch's counts say has happened to it."""
    if facts.replayed:
        text = f"it may be among {facts.replayed:,} messages that left the inbox, and wait in the stream {WRITER}"
        return Place("replay", text, next=_runs(TRANSPONDER), certain=False)
    shown = {name: facts.fates.get(name, 0) for name in ("stopped", "repeated")}
    happened = [name for name, number in shown.items() if number]
    texts = {
        "stopped": "its route leads nowhere: it was decoded, and stopped there",
        "repeated": "another record had brought the same message (by its message key) before: it was not stored twice",
    }
    if happened == ["stopped"]:
        hint = "give the device or its blueprint a route that ends in `writer`; what was stopped stays out of history"
        return Place("stopped", texts["stopped"], next=hint, facts=shown)
    if happened == ["repeated"]:
        return Place("repeated", texts["repeated"], next="the device's history has it once", facts=shown)
    if happened:
        text = f"it left no row: either {texts['stopped']}; or {texts['repeated']}"
        return Place("stopped", text, next="ask by device and time, which tells them apart", certain=False, facts=shown)
    text = "it was decoded to no message (an empty array, say), or its message was deleted since"
    return Place("nothing", text, next="nothing waits anywhere", facts=shown)


def _at_gateway(name: RecordName, source: Source, gateway: GatewayStanding | None) -> Place:
    """Never accepted, and no gap: its gateway has it, or nobody."""
    if gateway is None or gateway.standing is None or gateway.standing_at is None:
        text = f"it is not here; {source} has not told what is in its log"
        return Place("unknown", text, next=f"see `tidegate-edge status` at {source.gateway_id or 'the gateway'}")
    standing = gateway.standing
    told_ms = round(gateway.standing_at.timestamp() * 1000)
    shown = {"gateway": gateway.gateway_id, "told_time": told_ms, "pending": gateway.pending}
    as_of = f"as gateway {gateway.gateway_id} said last"
    if _covers(standing.in_flight, name):
        text = f"it is on the link, {as_of}: sent, and not answered yet"
        hint = "it is here within seconds; what is not answered is sent again"
        return Place("in-flight", text, told_ms, hint, facts=shown)
    if _covers(standing.pending, name) or _cut_off(standing, name):
        text = f"it waits in the log of gateway {gateway.gateway_id}, {as_of}, among {gateway.pending:,} records"
        hint = "it comes when the link is up: live data first, the backlog beside it (`tidegate-edge status` there)"
        return Place("log", text, told_ms, hint, facts=shown)
    end = dict(standing.ends).get(name.epoch)
    if end is not None and name.seq >= end:
        text = f"there is no such record yet, {as_of}: the newest of this run is {end - 1}"
        return Place("unknown", text, told_ms, "check the id", facts=shown)
    text = f"gateway {gateway.gateway_id} takes it for accepted, and it is not here: was the database set back?"
    return Place(
        "missing", text, told_ms, "it is asked for when the gateway connects next, if it still has it", facts=shown
    )


def _covers(spans: Sequence[Span], name: RecordName) -> bool:
    return any(span.epoch == name.epoch and span.first <= name.seq < span.end for span in spans)


def _cut_off(standing: Standing, name: RecordName) -> bool:
    """Older than the oldest pending record that the gateway named, where it had too many to name them all."""
    named = [span for span in standing.pending if span.epoch == name.epoch]
    return len(standing.pending) >= SPANS_MAX and (not named or name.seq < min(span.first for span in named))


def _maybe(facts: DeviceFacts) -> list[Place]:
    """Where it may be, since nothing of that name and time is stored."""
    places = []
    if facts.device_id is not None and facts.route is not None and next_topic(facts.route, ROUTABLE) != WRITER:
        text = f"the route of device {facts.device_id} leads nowhere: what it sends is decoded, and stopped there"
        hint = "give the device or its blueprint a route that ends in `writer`"
        places.append(Place("stopped", text, next=hint, certain=False, facts={"device": facts.device_id}))
    for gateway_id, gap in facts.gaps:
        places.append(_lost(gateway_id, gap, about=True))
    for gateway in facts.gateways:
        standing = gateway.standing
        behind = gateway.complete_until is None or gateway.complete_until <= facts.time_ms
        if standing is not None and gateway.standing_at is not None and gateway.pending and behind:
            told_ms = round(gateway.standing_at.timestamp() * 1000)
            text = f"it may wait in the log of gateway {gateway.gateway_id}, among {gateway.pending:,} records"
            hint = "it comes when the link is up: live data first, the backlog beside it"
            shown = {"gateway": gateway.gateway_id, "complete_until": gateway.complete_until}
            places.append(Place("log", text, told_ms, hint, False, shown))
    if facts.in_pipeline:
        text = f"it may be among {facts.in_pipeline:,} records that are accepted, and on their way through the streams"
        places.append(Place("stream", text, next=_runs(PROCESSOR), certain=False))
    return places


def _not_here(facts: DeviceFacts) -> Place:
    name = ":".join(facts.name)
    who = f"{name} (device {facts.device_id})" if facts.device_id is not None else f"{name}, which no device is called"
    complete = {gateway.gateway_id: gateway.complete_until for gateway in facts.gateways}
    text = f"nothing of that time is here from {who}"
    hint = (
        "if its gateways are complete beyond that time, it never reached one: see whether the device was acknowledged"
    )
    if facts.device_id is None:
        hint = f"check the name; {hint}"
    return Place("unknown", text, next=hint, certain=False, facts={"complete_until": complete})
