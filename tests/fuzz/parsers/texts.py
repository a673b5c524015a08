"""Topics and paths, frames' logins, answers to commands: text that devices send, held against what is expected."""

from __future__ import annotations

import contextlib
from typing import Final

from edge.listeners.coap.routes import Routes
from edge.listeners.command_form import is_answer
from edge.listeners.http.routes import route, wait_s
from edge.listeners.priorities import Priorities
from protocols.codecs.media import codec_of_media_type
from protocols.errors import WireError
from protocols.events import (
    COMMAND_ID_CHARACTERS_MAX,
    PRESENCE,
    REASON_CHARACTERS_MAX,
    RESPONSE,
    event_codec,
    event_decoder,
    read_presence,
    read_response,
)
from protocols.limits import NAME_BYTES_MAX, TOPIC_BYTES_MAX
from protocols.messages import Priority
from protocols.mqtt.topics import decode_filter, decode_topic, is_own, matches, split_shared
from protocols.templates import NOBODY, TEMPLATES_MAX, Template, TemplateError, Templates
from tests.fuzz.target import TAKEN, Parser, Stretch

TEMPLATES: Final = Templates(
    [
        *(f"{level}/+/dev-{{serial}}-x/{level}" for level in "abcdefghij"),
        *("+/" * depth + "{serial}/#" for depth in range(TEMPLATES_MAX - 14)),
        "$sys/{esn}", "up", "sensors/{serial}/up", "ID {serial}",
    ]
)  # fmt: skip
ROUTES: Final = Routes(("sensors/{serial}/up", "{serial}", "+/#"))
LOGIN: Final = Template("ID {serial}")
PRIORITIES: Final = Priorities([("alarm/#", Priority.ALARM), ("+/event", Priority.EVENT)])


def finds_names(data: bytes) -> str:
    """As a topic of MQTT, a path of HTTP or CoAP, and the first line of a connection."""
    text = data.decode(errors="replace")
    found = TEMPLATES.match(text)
    for template in TEMPLATES.all:
        name = template.match(text)
        if name is not None:
            assert "\0" not in text, "no database text can hold it"
            assert len(name.alias.encode()) <= NAME_BYTES_MAX
            assert matches(template.topic_filter, text)
            if name != NOBODY:
                with contextlib.suppress(TemplateError):
                    assert template.match(template.fill(name.alias)) == name
    login = LOGIN.match(text.strip())
    for routed in (route(TEMPLATES, text), ROUTES.find(text)):
        if routed is not None:
            assert "\0" not in text
            assert len(text.encode()) <= TOPIC_BYTES_MAX
    PRIORITIES.of(text)
    event_codec(text)
    codec_of_media_type(text)
    wait_s(text)
    return TAKEN if found is not None or login is not None else "none"


def reads_topic(data: bytes) -> str:
    """Of MQTT, which has rules of its own."""
    wanted = decode_filter(data)
    is_own(wanted)
    _, shared = split_shared(wanted)
    matches(shared, "sensors/7/up")
    with contextlib.suppress(WireError):
        assert matches(wanted, decode_topic(data)) or wanted.startswith("$")
    return TAKEN


def reads_answer(data: bytes) -> str:
    """A device's answer to a command, told apart from messages where frames carry both."""
    answers = is_answer(data)
    for topic in ("up/response/c1", "up/response", ""):
        for codec in (RESPONSE, PRESENCE):
            decoded = event_decoder(codec, topic)([data])
            assert not decoded.place
            assert len(decoded.errors) <= 1
        with contextlib.suppress(WireError):
            response = read_response(topic, data)
            assert 0 < len(response.command_id) <= COMMAND_ID_CHARACTERS_MAX
            assert response.refusal is None or 0 < len(response.refusal) <= REASON_CHARACTERS_MAX
    with contextlib.suppress(WireError):
        assert len(read_presence(data).reason) <= REASON_CHARACTERS_MAX
    if answers:
        read_response("", data)
    return TAKEN if answers else "none"


UUID: Final = b"0190f0f0-0000-7000-8000-000000000001"

PARSERS: Final = (
    Parser(
        "topics",
        finds_names,
        (
            b"sensors/7/up",
            b"a/x/dev-7-x/a",
            b"ID crane",
            b"7/down",
            b"7/response/c1",
            b"a/b/down/c1/received",
            b"$sys/9",
        ),
        stretches=(Stretch(b"", b"/"), Stretch(b"", b"a/"), Stretch(b"a/x/dev-", b"-x", b"-x/a"), Stretch(b"", b"x")),
        steps_per_byte=40,
    ),
    Parser(
        "topics:mqtt",
        reads_topic,
        (b"down/#", b"+/7/up", b"$share/group/+/x", b"up"),
        refusals=(WireError,),
        stretches=(Stretch(b"", b"/"), Stretch(b"", b"+/")),
    ),
    Parser(
        "answers",
        reads_answer,
        (
            b'{"response":"' + UUID + b'","ok":true}',
            b'{"response":"' + UUID + b'","error":{"code":7}}',
            b'{"response":"' + UUID + b'","ok":false,"error":"jammed"}',
            b'{"online":true,"reason":"connected"}',
        ),
        stretches=(
            Stretch(b'{"response":', b"["),
            Stretch(b"", b'{"response":'),
            Stretch(b'{"online":true,"x":', b"["),
            Stretch(b'{"response":"' + UUID + b'","error":"', b"x", b'"}'),
            Stretch(b'{"response":"' + UUID + b'","error":[', b"[],", b"1]}"),
        ),
    ),
)
