"""What somebody may do in a project: actions, by role, everywhere or in some systems only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec

Permission = Literal[
    "list", "read", "create", "update", "delete", "history", "command", "ingest", "simulate", "administer"
]
"""list, read, create, update, delete: of what is configured, and of what waits. history: stored telemetry. command:
send to devices, and what they are to be like. ingest: send telemetry over HTTP. simulate: run simulations. administer:
users, roles, keys, audit trail, retention, the project as a file."""
PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)

_VIEWER: Final[frozenset[Permission]] = frozenset({"list", "read", "history"})
_OPERATOR: Final[frozenset[Permission]] = _VIEWER | {"command", "simulate"}
_EDITOR: Final[frozenset[Permission]] = _OPERATOR | {"create", "update", "delete", "ingest"}
ROLES: Final[Mapping[str, frozenset[Permission]]] = {
    "viewer": _VIEWER,
    "operator": _OPERATOR,
    "editor": _EDITOR,
    "owner": frozenset(PERMISSIONS),
}
"""Those that every project has; it may have more of its own."""
NOTHING: Final[frozenset[Permission]] = frozenset()


class Access(msgspec.Struct, frozen=True):
    everywhere: frozenset[Permission] = NOTHING
    by_system: Mapping[str, frozenset[Permission]] = {}
    """More than that, in these systems."""

    def may(self, permission: Permission, system_id: str | None = None) -> bool:
        """`system_id` None: in the project as a whole."""
        if permission in self.everywhere:
            return True
        return system_id is not None and permission in self.by_system.get(system_id, NOTHING)

    def systems(self, permission: Permission) -> list[str] | None:
        """Those in which it may; None: all."""
        if permission in self.everywhere:
            return None
        return sorted(system_id for system_id, held in self.by_system.items() if permission in held)

    def covers(self, other: Access) -> bool:
        """Whether who has this may give `other` to somebody."""
        return other.everywhere <= self.everywhere and all(
            held <= self.everywhere | self.by_system.get(system_id, NOTHING)
            for system_id, held in other.by_system.items()
        )
