"""Writes MQTT.md: the head below, and tables of what the tests show of both standards, from their markers: `make docs`.

A test says `@pytest.mark.mqtt("5.0", "MQTT-3.1.2-24", "section 4.9")`: numbered statements of a standard, or a section.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).with_name("MQTT.md")
TESTS: Final = PAGE.parent.parent / "tests"
HEAD: Final = """# MQTT

The gateway is an MQTT server of versions 3.1.1 and 5.0 (`[[mqtt]]` in its configuration; `transport = "websocket"` for
browsers). [Connect a device](CONNECT.md) shows how. This page says what it does where the standards leave a choice,
and what its tests show of them. Made by `make docs` from the tests' markers.

## What a device gets

- **publishing**: any topic; recorded under the device's name. PUBACK and PUBREC leave once the record is on the
  gateway's disk. QoS 0 is best effort until then, and counted
- **QoS 2**: one record a message, also when the device sends it again after the gateway was killed: the packet
  identifier is noted before the record is written, with the key of its batch, and forgotten before PUBCOMP leaves
- **its own topics**: `down/…`: what the gateway sends to it. A command is a message to `down/<name>`; with MQTT 5 its
  correlation data are the command's id, and its response topic is `up/response`
- **other devices' topics**: only in a network with `device_talk` (`PATCH /api/v1/networks/…`): there subscriptions
  reach what devices publish, once it is recorded. Topics below `down/` and `$` are never passed on: a device cannot
  command another
- **retained messages**: kept for a network whose devices talk, by topic, over restarts; elsewhere nobody could see
  them. All are recorded as messages
- **wills**: recorded as a message of the device, then passed on like one; with their delay. When the gateway is
  stopped, wills of devices that said no goodbye are recorded; when it is killed, they are not (3.1.2.5 leaves that
  open)
- **sessions**: of a client identifier and a device: two devices never meet. Kept on disk over restarts, for at most
  30 days (MQTT 5: the server's expiry in CONNACK says so), at most 8 of a device and
  20,000 of a network while clients are away. A clean one touches no disk
- **while it is away**: messages of QoS 1 and 2 from other devices wait in order, at most 1,000 and 1 MiB a session;
  what finds no room is counted. Commands wait in the gateway's own queue instead, until their deadline
- **at a time**: 16 messages to a device, or fewer if it asks (Receive Maximum); a command that is under way is sent
  again with its packet identifier, and is not sent twice
- **metadata**: user properties, correlation data, content type and response topic of a PUBLISH are kept beside its
  record, as a map of text to text (`$correlation`, `$content-type`, `$response-topic`; a name that comes twice has
  both values, a comma between), and stand in its messages as the attribute `$metadata`
- **who may connect**: a device's or a network's credential; or, with `tls_client_ca`, a client certificate: its
  common name, else its first alternative name, is the user name
- **limits**: those of `protocols/limits.py`, said in CONNACK with MQTT 5: packet size, 4,096 messages without an
  answer, 64 topic aliases. `messages_per_s_max`: a device that sends more is read no faster, and loses nothing
- **records that are not taken**: (a full log, say) the connection ends, with MQTT 5 by 0x97: a device that keeps its
  session sends them again. A PUBACK that says no would make it forget them

`$SYS` topics are not there: the same figures, and more, are at the gateway's status page, in its metrics and in
`tidegate-edge status`, for people
and not for devices. A subscription to them is refused like any that is not the device's own.

## What the tests show

Each row is a section of a standard. Numbers such as 3.1.2-24 are the standard's own of its normative statements; § is
a section without one. The
count is of tests, many of which run with several cases, and with both versions.
"""

COMMON: Final = {
    "3.1.0": ("CONNECT", ""),
    "3.1.1": ("CONNECT: fixed header", ""),
    "3.1.2": ("CONNECT: variable header", ""),
    "3.1.3": ("CONNECT: payload", ""),
    "3.1.4": ("CONNECT: actions", ""),
    "3.2.0": ("CONNACK", ""),
    "3.2.1": ("CONNACK: fixed header", "nothing but the packet's type; its bytes stand in the tests of 3.2.2"),
    "3.2.2": ("CONNACK: variable header", ""),
    "3.3.1": ("PUBLISH: fixed header", ""),
    "3.3.2": ("PUBLISH: variable header", ""),
    "3.3.3": ("PUBLISH: payload", ""),
    "3.3.4": ("PUBLISH: actions", ""),
    "3.4": ("PUBACK", ""),
    "3.5": ("PUBREC", ""),
    "3.6": ("PUBREL", ""),
    "3.7": ("PUBCOMP", ""),
    "3.8.1": ("SUBSCRIBE: fixed header", ""),
    "3.8.3": ("SUBSCRIBE: payload", ""),
    "3.8.4": ("SUBSCRIBE: actions", ""),
    "3.9": ("SUBACK", ""),
    "3.10": ("UNSUBSCRIBE", ""),
    "3.11": ("UNSUBACK", "shown by the tests of UNSUBSCRIBE, which it answers"),
    "3.12": ("PINGREQ", ""),
    "3.13": ("PINGRESP", ""),
    "3.14": ("DISCONNECT", ""),
    "4.1": ("Session state", ""),
    "4.2": ("Network connections", ""),
    "4.3": ("Quality of service", ""),
    "4.4": ("Message delivery retry", ""),
    "4.5": ("Message receipt", ""),
    "4.6": ("Message ordering", ""),
    "4.7": ("Topic names and topic filters", ""),
    "6": ("WebSocket", ""),
}
"""Section to its title, and why no test shows it, where none does."""

SECTIONS: Final = {
    "3.1.1": COMMON
    | {
        "1.5.3": ("UTF-8 strings", ""),
        "2.1": ("Structure of a packet", "a drawing; each round trip of a packet follows it"),
        "2.2": ("Fixed header", ""),
        "2.3": ("Variable header: packet identifier", ""),
        "3.3.5": ("PUBLISH: actions of the server", ""),
        "4.8": ("Handling errors", ""),
        "5": ("Security", "not normative; TLS, client certificates and credentials have tests of their own"),
    },
    "5.0": COMMON
    | {
        "1.5.4": ("UTF-8 strings", ""),
        "1.5.5": ("Variable byte integers", ""),
        "1.5.6": ("Binary data", ""),
        "1.5.7": ("Pairs of strings", ""),
        "2.1": ("Structure and fixed header", ""),
        "2.2.1": ("Packet identifier", ""),
        "2.2.2": ("Properties", ""),
        "2.4": ("Reason codes", ""),
        "3.8.2": ("SUBSCRIBE: variable header", ""),
        "3.15": ("AUTH", ""),
        "4.8": ("Subscriptions, shared ones among them", ""),
        "4.9": ("Flow control", ""),
        "4.10": ("Request and response", ""),
        "4.11": ("Server redirection", "a gateway stands for itself: it sends no device to another server"),
        "4.12": ("Enhanced authentication", ""),
        "4.13": ("Handling errors", ""),
        "5": ("Security", "not normative; TLS, client certificates and credentials have tests of their own"),
    },
}


def marks() -> Iterator[tuple[str, str, str]]:
    """Version of the standard, clause, and the test that shows it."""
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        if "mark.mqtt(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.mqtt":
                    version, *clauses = (ast.literal_eval(argument) for argument in decorator.args)
                    yield from ((version, clause, node.name) for clause in clauses)


def section_of(clause: str, version: str) -> str:
    """The row of a clause. Raises KeyError for a section that no row has."""
    number = clause.removeprefix("section ").removeprefix("MQTT-").partition("-")[0]
    levels = number.split(".")
    for count in range(len(levels), 0, -1):
        if ".".join(levels[:count]) in SECTIONS[version]:
            return ".".join(levels[:count])
    raise KeyError(f"{clause} of MQTT {version} belongs to no row of docs/mqtt.py")


def page() -> str:
    """The whole of docs/MQTT.md."""
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for version, clause, test in marks():
        found.setdefault((version, section_of(clause, version)), {}).setdefault(clause, set()).add(test)
    parts = [HEAD]
    for version, sections in SECTIONS.items():
        parts.append(f"\n### MQTT {version}\n\n| section | what it is about | statements shown | tests |\n")
        parts.append("| --- | --- | --- | --- |\n")
        for section in sorted(sections, key=lambda each: [int(level) for level in each.split(".")]):
            title, reason = sections[section]
            clauses = found.get((version, section), {})
            parts.append(f"| {section} | {title} | {_statements(clauses) or reason} | {_tests(clauses)} |\n")
    return "".join(parts)


def empty_rows() -> list[str]:
    """Rows without a test and without a reason."""
    shown = {(version, section_of(clause, version)) for version, clause, _ in marks()}
    return [
        f"{version}: {section} {title}"
        for version, sections in SECTIONS.items()
        for section, (title, reason) in sections.items()
        if (version, section) not in shown and not reason
    ]


def _statements(clauses: dict[str, set[str]]) -> str:
    numbered = sorted(
        (clause for clause in clauses if clause.startswith("MQTT-")),
        key=lambda each: [int(number) for number in re.findall(r"\d+", each)],
    )
    rest = sorted(clause.removeprefix("section ") for clause in clauses if not clause.startswith("MQTT-"))
    return ", ".join([*(clause.removeprefix("MQTT-") for clause in numbered), *(f"§{each}" for each in rest)])


def _tests(clauses: dict[str, set[str]]) -> str:
    names = {name for tests in clauses.values() for name in tests}
    return str(len(names)) if names else ""


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE.name}: written")
