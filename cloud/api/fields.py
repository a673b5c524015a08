"""Fields that several resources have, with their limits, descriptions and examples."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cloud.api.problems import invalid
from cloud.api.tenancy import ID_PATTERN
from protocols.limits import NAME_BYTES_MAX
from protocols.messages import Route

TITLE_CHARACTERS_MAX: Final = 200
ROUTE_TOPICS_MAX: Final = 16
"""Topics that one event visits: each is a hop of its own, with its own storage."""
EVENTS: Final = ("device_data_event",)
"""Event types that a route may name."""


def plain(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds a character that cannot be printed")
    return text


def _name(text: str) -> str:
    if len(text.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"is longer than {NAME_BYTES_MAX} bytes")
    return plain(text)


ChosenId = Annotated[
    str,
    Field(
        pattern=ID_PATTERN,
        description="Chosen by you, unique in its project, for good: small letters, digits, - and _, up to 63.",
    ),
]
Title = Annotated[
    str,
    Field(min_length=1, max_length=TITLE_CHARACTERS_MAX, description="For people."),
    AfterValidator(plain),
]
Name = Annotated[str, Field(min_length=1, max_length=NAME_BYTES_MAX), AfterValidator(_name)]
"""What devices are called on the wire."""
RouteField = Annotated[
    Route | None,
    Field(
        description="Event type to the topics that a message visits, in order; null: as a level above says, in the end "
        "the writer.",
        examples=[{"device_data_event": ["writer"]}],
    ),
]


class Body(BaseModel):
    """A request's body: fields that it does not know are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid")


class Resource(BaseModel):
    """A row, as it is shown."""

    model_config = ConfigDict(from_attributes=True)


class CredentialBody(Body):
    keep_previous: bool = Field(
        default=True,
        description="The secret before stays valid beside the new one, until the next is made, or it is replaced.",
    )


CreatedAt = Annotated[datetime.datetime, Field(description="RFC 3339.", examples=["2026-03-01T08:30:00Z"])]
Revision = Annotated[int, Field(description="Of the registry, when it last changed; also its ETag.", examples=[42])]


def check_route(route: Route | None, routable: Collection[str]) -> None:
    """Raises a problem for what no message can follow."""
    for event, topics in (route or {}).items():
        if event not in EVENTS:
            raise invalid("route", f"{event!r} is no event type", remedy=f"known are: {', '.join(EVENTS)}")
        if len(topics) > ROUTE_TOPICS_MAX:
            raise invalid("route", f"{len(topics)} topics for {event}", limit=ROUTE_TOPICS_MAX)
        for topic in topics:
            if topic not in routable:
                known = ", ".join(sorted(routable))
                raise invalid("route", f"there is no topic {topic!r}", remedy=f"known are: {known}")
