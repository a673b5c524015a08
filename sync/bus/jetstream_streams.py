"""What the cloud's topics are in NATS JetStream, and how they are made: idempotent, by every process at its start.

    topic     a stream of the same name, with the subjects `<topic>.live` and `<topic>.backfill`
    channel   two durable pull consumers of it, `<channel>-live` and `<channel>-backfill`, one for each subject

Retention is by interest: a batch leaves the stream once every channel has acknowledged it. So consumers exist before
anything is accepted, or it would be accepted and forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, TypeVar

import msgspec
import nats.errors
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, ServiceUnavailableError

from protocols.messages import Lane
from sync.bus.contract import BusError, TopicSpec

ACK_WAIT_S: Final = 10.0
"""What a reader does not answer, and does not say that it is working on, is delivered again after this: longer than a
pause of a healthy process, and as long as a batch waits when one is killed."""

ACK_PENDING_MAX: Final = 1024
"""Batches of one lane that all readers of a channel may hold unanswered: room for several processes."""

DUPLICATES_S: Final = 60.0
"""How long JetStream knows the key of a batch that had one; hops know record numbers for good."""

RETRY_S: Final = 0.1
"""Between attempts while JetStream is not up yet."""

_OTHER_CONFIG: Final = 10058
"""JetStream's error code for a stream that exists with another configuration."""

_T = TypeVar("_T")


class ChannelStats(msgspec.Struct, frozen=True):
    """One lane of a channel, in batches."""

    channel: str
    lane: Lane
    waiting: int
    """Not delivered to any reader."""
    unanswered: int
    """Delivered and not acknowledged."""


class TopicStats(msgspec.Struct, frozen=True):
    topic: str
    batches: int
    """In the stream: some channel has not acknowledged them. 0: nothing is in the pipeline here."""
    bytes: int
    bytes_max: int
    channels: list[ChannelStats]


def subject(topic: str, lane: Lane) -> str:
    return f"{topic}.{lane.value}"


def consumer(channel: str, lane: Lane) -> str:
    return f"{channel}-{lane.value}"


async def ensure_topics(
    js: JetStreamContext, topics: Iterable[TopicSpec], *, ack_wait_s: float, deadline_s: float
) -> None:
    """Makes streams and consumers what they should be; waits out a JetStream that is starting. Raises BusError."""
    for spec in topics:
        try:
            async with asyncio.timeout(deadline_s):
                await _when_up(partial(_ensure_stream, js, spec))
                for channel in spec.channels:
                    for lane in Lane:
                        config = _consumer_config(spec.name, channel, lane, ack_wait_s)
                        await _when_up(partial(js.add_consumer, spec.name, config))
        except TimeoutError:
            raise BusError(f"JetStream was not ready within {deadline_s:g} s") from None
        except APIError as error:
            raise BusError(f"JetStream does not take topic {spec.name}: {error.description}") from None
        except nats.errors.Error as error:
            raise BusError(f"topic {spec.name} could not be made: {error}") from None


async def topic_stats(js: JetStreamContext, topics: Iterable[TopicSpec]) -> list[TopicStats]:
    """What waits where. Raises BusError."""
    found: list[TopicStats] = []
    try:
        for spec in topics:
            stream = await js.stream_info(spec.name)
            channels: list[ChannelStats] = []
            for channel in spec.channels:
                for lane in Lane:
                    state = await js.consumer_info(spec.name, consumer(channel, lane))
                    channels.append(ChannelStats(channel, lane, state.num_pending or 0, state.num_ack_pending or 0))
            found.append(
                TopicStats(spec.name, stream.state.messages, stream.state.bytes, stream.config.max_bytes or 0, channels)
            )
    except (nats.errors.Error, APIError) as error:
        raise BusError(f"JetStream does not tell what waits: {error}") from None
    return found


async def _when_up(call: Callable[[], Awaitable[_T]]) -> _T:
    while True:
        try:
            return await call()
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError, ServiceUnavailableError):
            await asyncio.sleep(RETRY_S)  # the caller bounds it


async def _ensure_stream(js: JetStreamContext, spec: TopicSpec) -> None:
    config = _stream_config(spec)
    try:
        await js.add_stream(config)
    except APIError as error:
        if error.err_code != _OTHER_CONFIG:
            raise
        await js.update_stream(config)


def _stream_config(spec: TopicSpec) -> api.StreamConfig:
    return api.StreamConfig(
        name=spec.name,
        subjects=[subject(spec.name, lane) for lane in Lane],
        retention=api.RetentionPolicy.INTEREST,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_bytes=spec.bytes_max,
        duplicate_window=DUPLICATES_S,
        description="A topic of Tidegate",
    )


def _consumer_config(topic: str, channel: str, lane: Lane, ack_wait_s: float) -> api.ConsumerConfig:
    name = consumer(channel, lane)
    return api.ConsumerConfig(
        name=name,
        durable_name=name,
        deliver_policy=api.DeliverPolicy.ALL,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ack_wait_s,
        max_deliver=-1,
        max_ack_pending=ACK_PENDING_MAX,
        filter_subject=subject(topic, lane),
    )
