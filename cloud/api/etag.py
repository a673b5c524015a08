"""Changes that do not overwrite each other unseen: a row's revision is its ETag, If-Match names the one that was read
(RFC 9110, sections 8.8.3 and 13.1.1)."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Depends, Header, Response

from cloud.api.problems import invalid

_ETAG: Final = re.compile(r'(?:W/)?"(\d{1,18})"')


def set_etag(response: Response, revision: int) -> None:
    response.headers["ETag"] = f'"{revision}"'


def _expected(
    if_match: Annotated[
        str | None, Header(description="The ETag that was read: the change is refused if the row has changed since.")
    ] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise invalid("If-Match", "not an ETag of this server", remedy="send the ETag header of the answer as it came")
    return int(match[1])


ExpectedRevision = Annotated[int | None, Depends(_expected)]
