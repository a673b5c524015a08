"""The cloud's public API, as far as the simulator needs it: nothing here that any user could not do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from tidegate.console import UserError

REQUEST_S: Final = 20.0
"""An answer takes milliseconds; a database that is just starting takes seconds."""
LINE_BYTES_MAX: Final = 1024 * 1024
"""One row of history: a payload has at most 256 KiB, and JSON may escape some of it."""
PAGE_ITEMS: Final = 1000
"""As many as the API gives in one answer."""
ITEMS_MAX: Final = 200_000
"""Read of one list: more rejects or gaps than anybody looks through."""

_T = TypeVar("_T")


class ApiError(Exception):
    """The API said no; `status` and its reason. Asking the same again will not help."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class UnreachableError(Exception):
    """No answer, or the server is not ready: try again later."""


class Session(msgspec.Struct, frozen=True):
    token: str
    expires: str
    """RFC 3339."""


class HistoryMark(msgspec.Struct, frozen=True, gc=False):
    """What the ledger needs of a message's data. Not every payload has these, and not every one a whole number."""

    boot: Any = None
    seq: Any = None


class HistoryLine(msgspec.Struct, frozen=True, gc=False):
    """A row of history as NDJSON gives it; its other fields are of no concern here."""

    data: HistoryMark


class GatewayTotals(msgspec.Struct, frozen=True):
    logged: int
    accepted: int
    pending: int
    evicted: int
    damaged: int


class GatewayLink(msgspec.Struct, frozen=True):
    state: str
    drain_s: float | None
    """Until nothing waits; None while nothing moves."""


class GatewayLog(msgspec.Struct, frozen=True):
    used_bytes: int
    max_bytes: int
    tails: int = 0
    """Ends of the log that could not be read, each of unknown length; part of no equation."""


class GatewayRegistry(msgspec.Struct, frozen=True):
    devices: int


class GatewayListener(msgspec.Struct, frozen=True):
    name: str
    kind: str
    recorded: int
    """Since the gateway started."""
    trouble: str
    """Why nothing comes by it; empty: all is well."""


class GatewayAccounting(msgspec.Struct, frozen=True):
    """What `GET /accounting` of a gateway's status API says, as far as it is of concern here."""

    totals: GatewayTotals
    closed: bool
    """By the gateway's own word: the totals add up, and those of each epoch."""
    link: GatewayLink
    log: GatewayLog
    registry: GatewayRegistry
    listeners: list[GatewayListener] = []

    @property
    def is_closed(self) -> bool:
        """By its word and by ours."""
        totals = self.totals
        return self.closed and totals.logged == totals.accepted + totals.pending + totals.evicted + totals.damaged

    def line(self, *, brief: bool = False) -> str:
        """The equation and the link; `brief`: without what is rare and zero."""
        totals = self.totals
        rare = [
            f" + {name} {count:,}"
            for name, count in (("evicted", totals.evicted), ("damaged", totals.damaged))
            if count or not brief
        ]
        tails = f" · {self.log.tails:,} torn ends" if self.log.tails else ""
        return (
            f"logged {totals.logged:,} = accepted {totals.accepted:,} + pending {totals.pending:,}{''.join(rare)}"
            f"{tails} · link {self.link.state}"
        )


class CloudApi:
    """One user's way into the API. `base`: http://host:port."""

    def __init__(self, base: str, client: httpx.AsyncClient, *, user: str = "", password: str = "", token: str = ""):
        self._root = f"{base.rstrip('/')}/api/v1"
        self._client = client
        self._user, self._password = user, password
        self._token = token

    async def sign_in(self) -> Session:
        answer = await self._send("POST", "/session", {"user": self._user, "password": self._password})
        session = _decode(answer.content, Session)
        self._token = session.token
        return session

    async def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Any:
        return msgspec.json.decode((await self._authorised("GET", path, None, params)).content)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return msgspec.json.decode((await self._authorised("POST", path, body, None)).content)

    async def create(self, path: str, body: Mapping[str, Any]) -> Any | None:
        """What was made; None if it existed already."""
        try:
            return await self.post(path, body)
        except ApiError as error:
            if error.status == httpx.codes.CONFLICT:
                return None
            raise

    async def items(self, path: str, params: Mapping[str, str | int]) -> AsyncIterator[dict[str, Any]]:
        """Of a list, page by page, at most ITEMS_MAX."""
        asked = {**params, "limit": PAGE_ITEMS}
        for _ in range(ITEMS_MAX // PAGE_ITEMS):
            page = await self.get(path, asked)
            for item in page["items"]:
                yield item
            if page["next"] is None:
                return
            asked["cursor"] = page["next"]

    async def marks(self, project: str, name: str, from_ms: int, to_ms: int) -> AsyncIterator[HistoryMark]:
        """Boot and seq of each row of a device's history in the range; `name`: `network:key:alias` or an id. A device
        that does not exist has none."""
        # A stream cannot be begun again half-way: the token must be good when it starts.
        await self.get("/session")
        path = f"{self._root}/devices/{quote(name, safe=':')}/history"
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/x-ndjson"}
        decode = msgspec.json.Decoder(HistoryLine).decode
        params: dict[str, str | int] = {"project_id": project, "from": from_ms, "to": to_ms, "order": "asc"}
        try:
            async with self._client.stream("GET", path, params=params, headers=headers, timeout=REQUEST_S) as answer:
                if answer.status_code == httpx.codes.NOT_FOUND:
                    return
                if answer.is_error:
                    await answer.aread()
                    _raise(answer)
                async for line in _lines(answer.aiter_bytes()):
                    yield decode(line).data
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise UnreachableError(f"{path}: {error or type(error).__name__}") from None

    async def _authorised(
        self, method: str, path: str, body: Any, params: Mapping[str, str | int] | None
    ) -> httpx.Response:
        await self._ensure_token()
        try:
            return await self._send(method, path, body, params)
        except ApiError as error:
            if error.status != httpx.codes.UNAUTHORIZED or not self._password:
                raise
        await self.sign_in()  # the token has expired
        return await self._send(method, path, body, params)

    async def _ensure_token(self) -> None:
        if not self._token:
            await self.sign_in()

    async def _send(
        self, method: str, path: str, body: Any, params: Mapping[str, str | int] | None = None
    ) -> httpx.Response:
        signs_in = (method, path) == ("POST", "/session")
        headers = {"Authorization": f"Bearer {self._token}"} if self._token and not signs_in else {}
        try:
            answer = await self._client.request(
                method, self._root + path, json=body, params=params, headers=headers, timeout=REQUEST_S
            )
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self._root}{path}: {error or type(error).__name__}") from None
        if answer.is_error:
            _raise(answer)
        return answer


async def gateway_accounting(base: str, client: httpx.AsyncClient) -> GatewayAccounting:
    """From a gateway's status API at `base`. Raises UnreachableError."""
    try:
        answer = await client.get(f"{base.rstrip('/')}/accounting", timeout=REQUEST_S)
    except httpx.HTTPError as error:
        raise UnreachableError(f"{base}: {error or type(error).__name__}") from None
    if answer.is_error:
        raise UnreachableError(f"{base}: {answer.status_code}")
    return _decode(answer.content, GatewayAccounting)


def token_line(session: Session) -> str:
    """What `curl -H @file` takes."""
    return f"Authorization: Bearer {session.token}\n"


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines that are not empty; httpx's own would decode every one into text first."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise UnreachableError(f"a line of history is longer than {LINE_BYTES_MAX:,} bytes")
        for line in lines:
            if line:
                yield line
    if rest:
        yield rest


def _raise(answer: httpx.Response) -> NoReturn:
    detail = answer.reason_phrase
    try:
        problem = answer.json()
        detail = str(problem.get("detail") or problem.get("title") or detail)
    except (ValueError, AttributeError):
        pass  # not a problem document: the phrase must do
    if answer.status_code >= 500:
        raise UnreachableError(f"{answer.request.url.path}: {answer.status_code} {detail}")
    raise ApiError(answer.status_code, f"{answer.request.url.path}: {detail}")


def _decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise UserError(f"an answer was not understood: {error}", "are simulator and server of one version?") from None
