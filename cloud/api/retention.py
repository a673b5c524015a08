"""How long a project keeps what: one document."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Response
from pydantic import Field

from cloud.api.context import Context
from cloud.api.etag import ExpectedRevision, set_etag
from cloud.api.fields import Body, Name
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject
from cloud.db import retention
from cloud.model.retention import ATTRIBUTES_MAX, BLUEPRINTS_MAX, DAYS_MAX
from cloud.model.retention import Retention as Rules

router = resource("/retention", "retention")

Days = Annotated[int | None, Field(ge=1, le=DAYS_MAX, description="null: for ever.")]


class BlueprintRetention(Body):
    history_days: Days = Field(
        default=None, description="Of messages of its devices; left out: as the project says; null: for ever."
    )
    attributes: dict[Name, Days] = Field(
        default_factory=dict,
        max_length=ATTRIBUTES_MAX,
        description="Of attributes by name, longer or shorter than their messages: those lose the others, or these.",
        examples=[{"vibration": 30, "alarm": None}],
    )


class Retention(Body):
    """History goes by event time, all else by when the cloud got it. Once a day the curator lets go of what is old."""

    history_days: Days = Field(default=None, description="Of messages. null: for ever.", examples=[365])
    deleted_device_days: Days = Field(
        default=None,
        description="Of messages of devices that exist no more, where that is shorter than history_days.",
        examples=[30],
    )
    rollup_days: Days = Field(
        default=None,
        description="Of sums by quarter hours, from which series are read when messages are gone. null: no longer than "
        "these.",
        examples=[1825],
    )
    event_days: Days = Field(default=None, description="Of comings and goings of devices.", examples=[90])
    reject_days: Days = Field(default=None, description="Of records that did not decode.", examples=[90])
    inbox_days: Days = Field(
        default=None, description="Of messages of unknown devices. They stay counted as unresolved.", examples=[90]
    )
    misfit_days: Days = Field(default=None, description="Of values that did not fit their blueprint.", examples=[90])
    dead_letter_days: Days = Field(default=None, description="Of what a service could not do.", examples=[90])
    blueprints: dict[Annotated[str, Field(pattern=ID_PATTERN)], BlueprintRetention] = Field(
        default_factory=dict,
        max_length=BLUEPRINTS_MAX,
        description="By blueprint.",
        examples=[{"pump": {"history_days": 730, "attributes": {"vibration": 30}}}],
    )


@router.get("", response_model_exclude_unset=True)
async def get_retention(context: Context, tenant: InProject, response: Response) -> Retention:
    """The project's rules; without any, all is kept."""
    async with tenant.connection() as conn:
        return _shown(*await retention.get(conn, tenant.project_id), response)


@router.put("", response_model_exclude_unset=True, openapi_extra=needs("administer"))
async def put_retention(
    body: Retention, context: Context, tenant: InProject, expected: ExpectedRevision, response: Response
) -> Retention:
    """In place of all rules that there were: what is left out is kept for ever. `POST /curator/runs` with `dry_run`
    tells what the next run would let go."""
    asked = msgspec.convert(body.model_dump(exclude_unset=True), Rules)
    rules, revision = await tenant.run(lambda conn: retention.put(conn, tenant.project_id, asked, expected))
    return _shown(rules, revision, response)


def _shown(rules: Rules, revision: int, response: Response) -> Retention:
    set_etag(response, revision)
    told: dict[str, Any] = dict.fromkeys(Retention.model_fields) | {"blueprints": {}}
    return Retention.model_validate(told | msgspec.to_builtins(rules))
