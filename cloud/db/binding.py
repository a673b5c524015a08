"""Statements over history that are put together: what a user writes is bound, never part of the text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cloud.model.series import Comparison, Filter

_SIZES: Final[Mapping[Comparison, str]] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}


class Binding:
    """The values of a statement's parameters, in order."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def bind(self, value: Any) -> str:
        """What stands for it in the text."""
        self.values.append(value)
        return f"${len(self.values)}"

    def conditions(self, filters: Iterable[Filter]) -> str:
        """On `history h`, to be put behind others."""
        return "".join(f" AND {self._condition(each)}" for each in filters)

    def _condition(self, wanted: Filter) -> str:
        value, at = f"{self.bind(wanted.value)}::jsonb", f"(h.data #> {self.bind(wanted.path)}::text[])"
        if wanted.comparison == "=":
            return f"{at} = {value}"
        if wanted.comparison == "!=":
            return f"{at} <> {value} AND jsonb_typeof({at}) <> 'null'"
        return f"jsonb_typeof({at}) = 'number' AND {at} {_SIZES[wanted.comparison]} {value}"
