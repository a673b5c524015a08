"""What current values hold that a blueprint does not name."""

from __future__ import annotations

from typing import Final

import msgspec

from cloud.db.blueprints import Blueprint
from cloud.db.database import Connection
from cloud.model.unmodelled import Seen, Unmodelled, known_paths, summed_up

UNMODELLED_MAX: Final = 1000
"""Paths that are told, those that most devices have."""
DEVICES_LOOKED_MAX: Final = 10_000
"""The newest of a blueprint: a second's work, and what they do not say, hardly any says."""
EXAMPLE_CHARACTERS_MAX: Final = 1000

_FIND: Final = """
    WITH tops AS (
        SELECT c.device_id, c.attribute, c.value
        FROM (SELECT id FROM device WHERE project_id = $1 AND blueprint_id = $2 ORDER BY id DESC LIMIT $6) d
        JOIN current_value c ON c.device_id = d.id AND c.project_id = $1
    ), seen AS (
        SELECT jsonb_build_array(attribute) AS path, value FROM tops
        UNION ALL
        SELECT p.path || to_jsonb(part.key), part.value
        FROM tops JOIN jsonb_array_elements($4::jsonb) AS p (path) ON p.path ->> 0 = tops.attribute
        CROSS JOIN LATERAL (SELECT tops.value #> ARRAY(SELECT jsonb_array_elements_text(p.path - 0)) AS value) AS whole
        CROSS JOIN LATERAL jsonb_each(
            CASE WHEN jsonb_typeof(whole.value) = 'object' THEN whole.value ELSE '{}'::jsonb END) AS part
    )
    SELECT path::text, jsonb_typeof(value) AS kind, count(*) AS devices,
           min(CASE WHEN length(value::text) <= $7 THEN value::text END) AS example
    FROM seen WHERE jsonb_typeof(value) <> 'null' AND path NOT IN (SELECT jsonb_array_elements($3::jsonb))
    GROUP BY path, kind ORDER BY devices DESC, path LIMIT $5"""
_path: Final = msgspec.json.Decoder(tuple[str, ...]).decode


async def of_blueprint(conn: Connection, blueprint: Blueprint) -> list[Unmodelled]:
    """Those that most devices have first."""
    known, open_above = known_paths(blueprint.attributes)
    found = await conn.fetch(
        _FIND,
        blueprint.project_id,
        blueprint.id,
        msgspec.json.encode(known).decode(),
        msgspec.json.encode(open_above).decode(),
        UNMODELLED_MAX,
        DEVICES_LOOKED_MAX,
        EXAMPLE_CHARACTERS_MAX,
    )
    return summed_up(
        Seen(
            _path(row["path"]),
            row["kind"],
            row["devices"],
            None if row["example"] is None else row["example"].encode(),
        )
        for row in found
    )
