"""The running gateway, as the other commands reach it: its status API."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import httpx
import msgspec

from edge.cli.options import elsewhere, load_config, start_command
from edge.data_folder import running
from tidegate.console import UserError

REQUEST_S: Final = 5.0
QUIET_S: Final = 60.0
"""A tail says something every quarter of a minute; one that does not has lost its gateway."""

T = TypeVar("T")


class RunningGateway:
    """Raises UserError, which names the command that starts it, where none runs."""

    def __init__(self, config_file: Path | None, data_dir: Path | None) -> None:
        self._start = start_command(config_file, data_dir)
        config = load_config(config_file, data_dir)
        found = running(config.data_dir)
        if found is None:
            remedies = filter(None, (self._start, elsewhere(config_file, data_dir)))
            raise UserError(f"no gateway runs on {config.data_dir}", "; ".join(remedies))
        if not found.status_url:
            raise UserError("the gateway is only just starting", "ask again in a moment")
        self.pid = found.pid
        self._client = httpx.Client(base_url=found.status_url, timeout=REQUEST_S, trust_env=False)

    def get(self, path: str, kind: type[T]) -> T:
        try:
            response = self._client.get(path)
            if response.status_code == 400:
                raise UserError(response.json()["detail"], response.json().get("remedy", ""))
            response.raise_for_status()
            return msgspec.json.decode(response.content, type=kind)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise self._unreachable(error) from None

    def events(
        self, path: str, query: Mapping[str, str] | None = None, *, within_s: float = math.inf
    ) -> Iterator[tuple[str, str]]:
        """Name and data of server-sent events, until the gateway stops, or until `within_s` have passed, and up to as
        much again where nothing is said."""
        name = "message"
        ends_s = time.monotonic() + within_s
        try:
            with self._client.stream("GET", path, params=query, timeout=min(QUIET_S, within_s)) as response:
                if response.is_error:
                    response.read()
                    raise UserError(f"the gateway answered {response.status_code}: {response.text}")
                for line in response.iter_lines():
                    if time.monotonic() >= ends_s:
                        return
                    field, _, value = line.partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data":
                        yield name, value
                        name = "message"
        except httpx.HTTPError as error:
            if isinstance(error, httpx.ReadTimeout) and time.monotonic() >= ends_s:
                return
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> UserError:
        return UserError(
            f"the gateway at {self._client.base_url} does not answer: {error or type(error).__name__}",
            f"see whether it is still running, else start it: {self._start}",
        )
