"""Why a change of the registry's rows was refused. Each names what it is about, in the API's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import asyncpg


class RowError(Exception):
    """Reject: the caller asked for something that the rows do not allow."""


class NotFoundError(RowError):
    """There is no `kind` called `ref` here."""

    def __init__(self, kind: str, ref: object) -> None:
        super().__init__(f"there is no {kind} {ref}")
        self.kind = kind
        self.ref = ref


class TakenError(RowError):
    """`field` names what another row is called already."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{what} exists already")
        self.field = field


class DanglingError(RowError):
    """`field` names a row that does not exist."""

    def __init__(self, field: str, kind: str, ref: object) -> None:
        super().__init__(f"{field} names {kind} {ref}, which does not exist")
        self.field = field
        self.kind = kind


class InUseError(RowError):
    """Other rows refer to it: they go first."""

    def __init__(self, kind: str, ref: object, by: str) -> None:
        super().__init__(f"{kind} {ref} is in use by {by}")
        self.by = by


class ChangedError(RowError):
    """The row is not at the revision that the caller had read."""

    def __init__(self, kind: str, ref: object, expected: int, found: int) -> None:
        super().__init__(f"{kind} {ref} was changed meanwhile: it is at revision {found}, not {expected}")
        self.found = found


@contextlib.contextmanager
def violations(meaning: Mapping[str, RowError]) -> Iterator[None]:
    """Raises what the violation of a constraint, by its name, means here."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        meant = meaning.get(error.constraint_name or "")
        if meant is None:
            raise
        raise meant from None
