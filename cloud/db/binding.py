"""Statements over history that are put together: what a user writes is bound, never part of the text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cloud.model.series import Comparison, Filter, Path

_SIZES: Final[Mapping[Comparison, str]] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}


class Binding:
    """The values of a statement's parameters, in order."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def bind(self, value: Any) -> str:
        """What stands for it in the text."""
        self.values.append(value)
        return f"${len(self.values)}"

    def value_at(self, path: Path) -> str:
        """What `history h` has at a path; a name alone is found in half the time."""
        if len(path) == 1:
            return f"(h.data -> {self.bind(path[0])}::text)"
        return f"(h.data #> {self.bind(path)}::text[])"

    def conditions(self, filters: Iterable[Filter]) -> str:
        """On `history h`, to be put behind others."""
        return "".join(f" AND {self._condition(each)}" for each in filters)

    def _condition(self, wanted: Filter) -> str:
        value, at = f"{self.bind(wanted.value)}::jsonb", self.value_at(wanted.path)
        if wanted.comparison == "=":
            return f"{at} = {value}"
        if wanted.comparison == "!=":
            return f"{at} <> {value} AND jsonb_typeof({at}) <> 'null'"
        return f"jsonb_typeof({at}) = 'number' AND {at} {_SIZES[wanted.comparison]} {value}"
