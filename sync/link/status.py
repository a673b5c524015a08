"""How the gateway's link stands, for people and metrics."""

from __future__ import annotations

import enum

import msgspec


class LinkState(enum.StrEnum):
    CONNECTING = "connecting"
    """Since the gateway runs, or the last connection ended, the first attempt has not failed yet."""
    UP = "up"
    DOWN = "down"


class LinkStatus(msgspec.Struct):
    """Kept up to date by LinkClient; read it, do not write it."""

    state: LinkState
    since_ms: int
    """Unix ms by the gateway's clock."""
    reason: str = ""
    """Why it is down, for people; empty while it is up."""
    failures: int = 0
    """Attempts that failed, or connections that broke soon, one after the other."""
    connections: int = 0
    """Times that it came up since the start."""
    retry_at_ms: int = 0
    """When the next attempt is due, while it is down."""
    project_id: str = ""
    gateway_id: str = ""
    credit_bytes: int = 0
    window_bytes: int = 0
    in_flight_bytes: int = 0
    """Of both lanes."""
    backfill_in_flight_bytes: int = 0
    backfill_credit_bytes: int | None = None
    """What backfill may have of the credit; None: all of it."""
    bytes_per_s_max: int = 0
    """What may be sent a second, as it is set; 0: no limit."""
    keeps_books: bool = False
    """Both ends keep anchors, gaps and standing."""
    anchors_told: int = 0
    gaps_told: int = 0
    """Kept by the cloud since the start; one that is told again counts again."""
    round_trip_ms: float | None = None
    cloud_ahead_ms: int = 0
    """The cloud's wall clock minus the gateway's, as of the last time it was heard."""
    frames_sent: int = 0
    wire_bytes_sent: int = 0
    """WebSocket messages, without their framing."""
    blocks_sent: int = 0
    blocks_refused: int = 0
    """Not taken by the cloud; they are sent again."""
    frames_unknown: int = 0
