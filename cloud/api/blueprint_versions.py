"""Versions of blueprints: what they were, what is between two, what a change would do."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Path, Query
from pydantic import BaseModel, Field

from cloud.api.blueprints import Attribute, BlueprintChange, BlueprintPath, changes_of
from cloud.api.context import Context
from cloud.api.fields import CreatedAt, RouteField
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject
from cloud.db import blueprint_versions, blueprints
from cloud.db.errors import NotFoundError
from cloud.model import blueprint_change
from cloud.model.blueprint_change import Effects, diff

router = resource("/blueprints", "blueprints")

VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[1])]
VersionQuery = Annotated[int | None, Query(ge=1, le=2**31 - 1)]


class BlueprintVersion(BaseModel):
    version: int = Field(description="1 is the first.", examples=[2])
    name: str = Field(examples=["Pump"])
    attributes: dict[str, Attribute]
    route: RouteField
    changed_at: CreatedAt


class FieldChange(BaseModel):
    before: Any = Field(examples=[100])
    after: Any = Field(examples=[120])


class AttributesDiff(BaseModel):
    added: dict[str, Attribute]
    removed: dict[str, Attribute]
    changed: dict[str, dict[str, FieldChange]] = Field(
        description="By attribute, then by field.",
        examples=[{"temperature": {"maximum": {"before": 100, "after": 120}}}],
    )


class BlueprintDiff(BaseModel):
    fields: dict[str, FieldChange] = Field(description="Of the blueprint itself: name, route.")
    attributes: AttributesDiff


class VersionsDiff(BlueprintDiff):
    from_version: int = Field(examples=[1])
    to_version: int = Field(examples=[2])


class ValueExample(BaseModel):
    device: int = Field(examples=[17])
    value: str = Field(description="JSON; cut where it is long.", examples=['"21.5"'])
    becomes: str | None = Field(description="JSON; null: it would not fit.", examples=["21.5"])
    reason: str | None = Field(examples=[None])


class AttributeEffect(BaseModel):
    attribute: str = Field(examples=["temperature"])
    change: str = Field(description="`added`, `removed`, `changed`.", examples=["changed"])
    values: int = Field(description="Devices that have a current value.", examples=[12])
    fit: int = Field(description="Values that would fit as they are.", examples=[10])
    convert: int = Field(description="Values that would be converted.", examples=[1])
    misfit: int = Field(description="Values that would be left out.", examples=[1])
    examples: list[ValueExample] = Field(description="Of what would be converted or left out.")


class BlueprintPreview(BaseModel):
    diff: BlueprintDiff
    devices: int = Field(description="That are of this blueprint.", examples=[20])
    attributes: list[AttributeEffect] = Field(
        description="What would become of the current values, were they sent again. What is stored stays as it is; "
        "what is removed is shown as unmodelled."
    )
    all_looked_at: bool = Field(description="False: there are too many values; these are of the newest devices.")


@router.get("/{blueprint_id}/versions")
async def list_blueprint_versions(
    blueprint_id: BlueprintPath, context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None
) -> Page[BlueprintVersion]:
    """The newest, which is the present one, first; the last 200 before it are kept."""
    after = decode_cursor(cursor, int)
    async with tenant.connection() as conn:
        rows = await blueprint_versions.page(conn, tenant.project_id, blueprint_id, after=after, limit=limit + 1)
    if not rows and after is None:
        raise NotFoundError("blueprint", blueprint_id)
    return make_page(rows, limit, lambda row: row.version, _version_shown)


@router.get("/{blueprint_id}/versions/{version}")
async def get_blueprint_version(
    blueprint_id: BlueprintPath, version: VersionNumber, context: Context, tenant: InProject
) -> BlueprintVersion:
    """What the blueprint was at that version."""
    async with tenant.connection() as conn:
        return _version_shown(await blueprint_versions.get(conn, tenant.project_id, blueprint_id, version))


@router.get("/{blueprint_id}/diff")
async def diff_blueprint(
    blueprint_id: BlueprintPath,
    context: Context,
    tenant: InProject,
    from_version: Annotated[VersionQuery, Query(alias="from", description="Absent: the one before `to`.")] = None,
    to_version: Annotated[VersionQuery, Query(alias="to", description="Absent: the present one.")] = None,
) -> VersionsDiff:
    """What is between two versions."""
    async with tenant.connection() as conn:
        after = await blueprint_versions.get(conn, tenant.project_id, blueprint_id, to_version)
        wanted = max(after.version - 1, 1) if from_version is None else from_version
        before = await blueprint_versions.get(conn, tenant.project_id, blueprint_id, wanted)
    found = diff(
        before.attributes,
        after.attributes,
        {"name": (before.name, after.name), "route": (before.route, after.route)},
    )
    return VersionsDiff(**_diff_shown(found).model_dump(), from_version=before.version, to_version=after.version)


@router.post("/{blueprint_id}/preview", openapi_extra=needs("read"))
async def preview_blueprint(
    blueprint_id: BlueprintPath, body: BlueprintChange, context: Context, tenant: InProject
) -> BlueprintPreview:
    """What a change would be, and what it would do to the values that there are. Nothing is changed."""
    changes = changes_of(body, context.settings.routable)
    async with tenant.transaction(isolation="repeatable_read", readonly=True) as conn:
        before = await blueprints.get(conn, tenant.project_id, blueprint_id)
        after = msgspec.structs.replace(before, **changes)
        found = diff(
            before.attributes,
            after.attributes,
            {"name": (before.name, after.name), "route": (before.route, after.route)},
        )
        effects = Effects(found, after.attributes)
        all_looked_at = await blueprint_versions.look_at_values(conn, tenant.project_id, blueprint_id, effects)
        devices = await blueprint_versions.devices(conn, tenant.project_id, blueprint_id)
    return BlueprintPreview(
        diff=_diff_shown(found),
        devices=devices,
        attributes=[AttributeEffect.model_validate(msgspec.to_builtins(effect)) for effect in effects.of.values()],
        all_looked_at=all_looked_at,
    )


def _version_shown(row: blueprint_versions.BlueprintVersion) -> BlueprintVersion:
    return BlueprintVersion.model_validate(msgspec.to_builtins(row, builtin_types=()))


def _diff_shown(found: blueprint_change.Diff) -> BlueprintDiff:
    held = msgspec.to_builtins(found)
    return BlueprintDiff(
        fields=_changes_shown(held["fields"]),
        attributes=AttributesDiff(
            added=held["added"],
            removed=held["removed"],
            changed={name: _changes_shown(fields) for name, fields in held["changed"].items()},
        ),
    )


def _changes_shown(changes: dict[str, tuple[Any, Any]]) -> dict[str, FieldChange]:
    return {name: FieldChange(before=before, after=after) for name, (before, after) in changes.items()}
