"""Every limit of the wire, with its reason. One place, so that they can be weighed against each other."""

from __future__ import annotations

from typing import Final

PAYLOAD_BYTES_MAX: Final = 256 * 1024
"""One record's payload. Larger things are files; a batch must hold several payloads and stay one NATS message."""

COMMAND_PAYLOAD_BYTES_MAX: Final = 64 * 1024
"""One command's payload: settings, not firmware; and no packet to a small device should be larger."""

BATCH_RECORDS_MAX: Final = 4096
"""Records in one batch: bounds what a bad batch can spoil, and how long one decode holds the event loop (4 ms)."""

BATCH_BYTES_MAX: Final = 1024 * 1024
"""One encoded batch: four of the largest payloads."""

BLOCK_BYTES_MAX: Final = 2 * 1024 * 1024
"""One block before compression: what one group commit writes and what damage can cost at once."""

SHIPMENT_BYTES_MAX: Final = 3 * 1024 * 1024
"""Blocks that travel in one NATS message; the server's `max_payload` is set to NATS_PAYLOAD_BYTES_MAX above it."""

NATS_PAYLOAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""The NATS server's own bound for a message; 8 MB is where its authors advise against going further."""

MESSAGES_PER_RECORD_MAX: Final = 4096
"""Messages that one record may decode to; a message's index in its record has 24 bits in its id."""

DECODED_RATIO_MAX: Final = 32
"""A record's messages may be so many times as large as its payload, as JSON: names and digits are longer than bytes,
and what stands beside an array of messages is in each of them. Without a bound, 8 kB would become 30 MB."""

DECODED_BYTES_MIN: Final = 16 * 1024
"""And this much more, so that the names of a few bits have room."""

SEQ_MAX: Final = 2**40 - 1
"""A record's number within an epoch, 40 bits in a message id: 127 days at 100,000 a second, then a new epoch opens."""

NAME_BYTES_MAX: Final = 128
"""Network id, alias key, alias, user name: each stands in indexes and in paths."""

TOPIC_BYTES_MAX: Final = 512
"""An MQTT topic or a path; the standard allows 65,535, which no device needs and an index would suffer from."""

METADATA_BYTES_MAX: Final = 4096
"""What a protocol says beside a record's payload (MQTT's user properties): headers, not a second payload."""

MQTT_PROPERTIES_BYTES_MAX: Final = METADATA_BYTES_MAX
"""Properties of one MQTT 5 packet; those of a PUBLISH are its record's metadata."""

MQTT_PACKET_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + TOPIC_BYTES_MAX + MQTT_PROPERTIES_BYTES_MAX + 16
"""A whole MQTT packet: the largest payload, its topic, properties and the headers."""

MQTT_CONNECT_BYTES_MAX: Final = 4096
"""CONNECT comes from strangers: room for ids and credentials, nothing more."""

MQTT_SUBSCRIPTIONS_MAX: Final = 32
"""Topic filters of one session: a device has a handful of topics of its own."""

LINK_FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
"""One WebSocket message of the link; a shipment and its header fit."""

JSON_DEPTH_MAX: Final = 32
"""Nesting of a JSON payload: deeper ones are hostile or mistaken, and recursion over them costs stack."""
