"""What replicas of the registry ask the database: what changed since a revision."""

from __future__ import annotations

from typing import Final

import msgspec

from cloud.db.database import Connection, Database
from cloud.db.errors import NotFoundError
from cloud.db.revision import REVISIONS_KEPT
from protocols.codecs import CodecSpec
from protocols.messages import Route
from sync.registry import Alias, Blueprint, Device, Network, Parent, RegistryChange

_codec_spec: Final = msgspec.json.Decoder(CodecSpec).decode
_route: Final = msgspec.json.Decoder(Route).decode
_aliases: Final = msgspec.json.Decoder(tuple[Alias, ...]).decode
_parents: Final = msgspec.json.Decoder(tuple[Parent, ...]).decode

ALIASES: Final = """(
    SELECT coalesce(jsonb_agg(jsonb_build_array(a.network_id, a.alias_key, a.alias) ORDER BY a.place), '[]')
    FROM alias a WHERE a.device_id = d.id)"""
"""A device's aliases as one column, for a query with `device d`."""
_PARENTS: Final = """(
    SELECT coalesce(jsonb_agg(jsonb_build_array(r.parent_id, r.key) ORDER BY r.parent_id, r.key), '[]')
    FROM relation r WHERE r.child_id = d.id)"""


async def revisions(conn: Connection) -> dict[str, int]:
    """Each project's newest revision."""
    return {row["id"]: row["revision"] for row in await conn.fetch("SELECT id, revision FROM project")}


async def newest_change(database: Database, project_id: str, base: int) -> RegistryChange:
    """`change_since`, in a view of its own."""
    async with database.transaction(isolation="repeatable_read", readonly=True) as conn:
        return await change_since(conn, project_id, base)


async def change_since(conn: Connection, project_id: str, base: int) -> RegistryChange:
    """What leads a replica from revision `base` to the newest; from 0 a snapshot, and also from where tombstones do not
    reach, or from a revision that this database has not seen yet (it was restored). All of one view: `conn` is in a
    repeatable-read transaction. Raises NotFoundError if there is no such project."""
    revision: int | None = await conn.fetchval("SELECT revision FROM project WHERE id = $1", project_id)
    if revision is None:
        raise NotFoundError("project", project_id)
    if base > revision or base < revision - REVISIONS_KEPT:
        base = 0
    gone: dict[str, list[str]] = {"network": [], "blueprint": [], "device": []}
    if base:
        for row in await conn.fetch(
            "SELECT kind, ref FROM tombstone WHERE project_id = $1 AND revision > $2", project_id, base
        ):
            gone[row["kind"]].append(row["ref"])
    return RegistryChange(
        project_id,
        base,
        revision,
        await _networks(conn, project_id, base),
        await _blueprints(conn, project_id, base),
        await _devices(conn, project_id, base),
        tuple(gone["network"]),
        tuple(gone["blueprint"]),
        tuple(map(int, gone["device"])),
    )


async def _networks(conn: Connection, project_id: str, base: int) -> tuple[Network, ...]:
    found = await conn.fetch(
        """SELECT id, alias_key, codec, secret_sha256, device_talk FROM network
           WHERE project_id = $1 AND revision > $2 ORDER BY id""",
        project_id,
        base,
    )
    return tuple(
        Network(row["id"], row["alias_key"], _codec_spec(row["codec"]), tuple(row["secret_sha256"]), row["device_talk"])
        for row in found
    )


async def _blueprints(conn: Connection, project_id: str, base: int) -> tuple[Blueprint, ...]:
    found = await conn.fetch(
        """SELECT id, route, attributes FROM blueprint WHERE project_id = $1 AND revision > $2 ORDER BY id""",
        project_id,
        base,
    )
    return tuple(
        Blueprint(row["id"], None if row["route"] is None else _route(row["route"]), row["attributes"]) for row in found
    )


async def _devices(conn: Connection, project_id: str, base: int) -> tuple[Device, ...]:
    found = await conn.fetch(
        f"""SELECT d.id, d.system_id, d.blueprint_id, d.route, d.secret_sha256, {ALIASES} AS aliases,
                   {_PARENTS} AS parents
            FROM device d WHERE d.project_id = $1 AND d.revision > $2 ORDER BY d.id""",
        project_id,
        base,
    )
    return tuple(
        Device(
            row["id"],
            row["system_id"],
            row["blueprint_id"],
            _aliases(row["aliases"]),
            None if row["route"] is None else _route(row["route"]),
            tuple(row["secret_sha256"]),
            _parents(row["parents"]),
        )
        for row in found
    )
