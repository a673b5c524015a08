"""What an MQTT 5 PUBLISH says beside its payload, as the record's metadata.

User properties stand under their names; a name that came twice has both values, a comma between them. What the standard
names is marked by `$`: `$correlation` (hexadecimal digits where it is not UTF-8), `$content-type`, `$response-topic`.
"""

from __future__ import annotations

from typing import Final

from protocols.limits import METADATA_BYTES_MAX
from protocols.metadata import encode_metadata
from protocols.mqtt.properties import NO_PROPERTIES, Properties

CORRELATION: Final = "$correlation"
CONTENT_TYPE: Final = "$content-type"
RESPONSE_TOPIC: Final = "$response-topic"


def metadata_of(properties: Properties) -> bytes:
    """Empty where there is nothing to keep."""
    if properties is NO_PROPERTIES:
        return b""
    found: dict[str, str] = {}
    for name, value in properties.user:
        found[name] = f"{found[name]}, {value}" if name in found else value
    if properties.correlation is not None:
        found[CORRELATION] = correlation_of(properties)
    if properties.content_type is not None:
        found[CONTENT_TYPE] = properties.content_type
    if properties.response_topic is not None:
        found[RESPONSE_TOPIC] = properties.response_topic
    if not found:
        return b""
    encoded = encode_metadata(found)
    # Only a correlation of mostly unprintable bytes can take more than its properties did, and those are bounded.
    return encoded if len(encoded) <= METADATA_BYTES_MAX else b""


def correlation_of(properties: Properties) -> str:
    """As text; hexadecimal digits where it is not UTF-8; empty where there is none."""
    data = properties.correlation or b""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data.hex()
    return text
