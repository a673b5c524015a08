"""Every limit of the CoAP listener, with its reason."""

from __future__ import annotations

from typing import Final

DATAGRAM_BYTES_MAX: Final = 4096
"""One datagram: larger ones are in fragments on any network, and a body of any size may come in blocks."""

BLOCK_BYTES_MAX: Final = 1024
"""What one message of ours carries, so that it is in no fragments (RFC 7252, section 4.6)."""

CORE_BLOCK_BYTES_MAX: Final = 256
"""Of `/.well-known/core`, which strangers may ask for under any address: so that it is no amplifier (section 11.3)."""

READS_MAX: Final = 64
"""Datagrams that are read before others have their turn: 2 ms of work."""

RECEIVE_BUFFER_BYTES: Final = 1024 * 1024
"""Asked of the kernel, for what comes while the event loop is at other work: about 1,000 messages. A longer queue would
make others wait behind a flood; what is dropped instead is sent again, and counted."""

EXCHANGE_S: Final = 247.0
"""For so long a message id means the same message (EXCHANGE_LIFETIME, section 4.8.2)."""

EXCHANGES_MAX: Final = 65_536
"""Messages that are remembered, so that one that comes again is answered and not recorded again: about 20 MB. When they
are full, the endpoint that has been silent longest is forgotten first; a message of its that then comes again is a
second record, and never a lost one."""

EXCHANGES_PER_ENDPOINT_MAX: Final = 1024
"""Of one address and port. A device has one message under way (NSTART); a proxy has many."""

WAITING_MAX: Final = 8192
"""Requests whose records are not on disk yet."""

WAITING_PER_SOURCE_MAX: Final = 1024
"""Of one address, so that one that floods a slow disk leaves room for the others."""

SOURCES_MAX: Final = 16_384
"""Addresses whose rate is known; the one that has been silent longest makes room. About 4 MB."""

TURNED_AWAY_PER_S: Final = 10
"""Of one address: messages above its rate that are told so (RFC 8516). Whoever floods is not answered with a flood."""

ANSWER_BYTES_MAX: Final = 64
"""Of an answer that is remembered, as 2.04 always is. What has a longer one was not recorded, and is looked at anew
if it comes again."""

UPLOADS_MAX: Final = 64
"""Bodies that are coming in blocks."""

UPLOADS_PER_SOURCE_MAX: Final = 4

UPLOADS_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of all of them, as far as they have come."""

UPLOAD_S: Final = 93.0
"""From one block to the next: as long as its sender may try (MAX_TRANSMIT_WAIT, section 4.8.2)."""

OBSERVERS_MAX: Final = 10_000
"""Devices that wait for commands: about 5 MB."""

OBSERVERS_PER_SOURCE_MAX: Final = 2048
"""Of one address: a border router has a mesh of devices behind it."""

OBSERVATION_S: Final = 26 * 3600.0
"""A device that was neither heard of nor took a command for longer has to observe anew: a day (RFC 7641, section 4.5),
and some room."""

ACK_S: Final = 2.0
ACK_RANDOM: Final = 1.5
RETRANSMITS_MAX: Final = 4
"""A command is sent again after 2 to 3 seconds, then after twice as long each time, four times in all (section 4.8):
the device has 62 to 93 seconds to acknowledge it."""

BLOCKS_S: Final = 93.0
"""For a device to fetch the rest of a command that does not fit into one message."""

RETRY_S: Final = 5
"""Max-Age of 5.03: a few of the collector's own attempts."""

ORIGINS_MAX: Final = 4096
"""Remembered, so that the messages of a device share one in a batch."""

TICK_S: Final = 5.0
"""From one look at what has expired to the next."""

DRAIN_S: Final = 10.0
"""At close: for what devices sent to be recorded and answered."""
