"""What hops give to other topics, from the transaction that decides it until the bus has it."""

from __future__ import annotations

from collections.abc import Sequence

from cloud.db.database import Connection
from cloud.model.output import Output, Unsent
from protocols.messages import Lane


async def add(conn: Connection, hop: str, lane: Lane, outputs: Sequence[Output]) -> list[int]:
    """Their numbers, in order."""
    found = await conn.fetch(
        """INSERT INTO unsent (hop, lane, topic, data)
           SELECT $1, $2, asked.topic, asked.data FROM unnest($3::text[], $4::bytea[])
           WITH ORDINALITY AS asked (topic, data, place) ORDER BY asked.place RETURNING number""",
        hop,
        lane.value,
        [output.topic for output in outputs],
        [output.data for output in outputs],
    )
    return [row["number"] for row in found]


async def oldest(conn: Connection, hop: str, limit: int) -> list[Unsent]:
    found = await conn.fetch(
        "SELECT number, lane, topic, data FROM unsent WHERE hop = $1 ORDER BY number LIMIT $2", hop, limit
    )
    return [Unsent(row["number"], Lane(row["lane"]), Output(row["topic"], row["data"])) for row in found]


async def remove(conn: Connection, numbers: Sequence[int]) -> None:
    await conn.execute("DELETE FROM unsent WHERE number = ANY($1::bigint[])", sorted(numbers))
