"""Forwarding from child to parent: what a message becomes at devices that its own one is related to.

One level: what was forwarded is not forwarded further, so there are no loops, and a message becomes as many others at
most as its device has parents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cloud.model.attribute import path_of
from cloud.model.fitting import Model, model_of, value_at
from cloud.model.series import Path
from protocols.ids import derived_message_id
from protocols.shipment import DERIVED, KEYED, Forward, MessageBatch
from sync.registry import Device, Registry


class Way(msgspec.Struct, frozen=True):
    """From a device to one of its parents."""

    parent: Device
    key: str
    attributes: tuple[tuple[Path, str], ...]
    """Where it is in the child's data, and its name at the parent."""
    model: Model
    """The parent's."""

    def forward(self, values: Mapping[str, msgspec.Raw], target: int) -> Forward | None:
        """`values`: the child's data. None: it has nothing for the parent."""
        found = {name: value for path, name in self.attributes if (value := value_at(values, path)) is not None}
        if not found:
            return None
        data = msgspec.json.encode(found)
        fitted = self.model.fit(data)
        if fitted is None:
            return Forward(target, self.key, data)
        return Forward(target, self.key, fitted.data, fitted.current_only, fitted.misfits)


def ways_from(registry: Registry, device_id: int) -> list[Way]:
    """To the parents that a device's messages are forwarded to, in their order."""
    child = registry.devices.get(device_id)
    ways = []
    for link in child.parents if child else ():
        parent = registry.devices.get(link.device_id)
        blueprint = registry.blueprints.get(parent.blueprint_id) if parent else None
        model = model_of(blueprint.attributes) if blueprint else None
        declared = model.relationships.get(link.key) if model else None
        if child and parent and model and declared and declared.forward and declared.blueprint == child.blueprint_id:
            attributes = tuple((path_of(here), path_of(there)[0]) for here, there in sorted(declared.forward.items()))
            ways.append(Way(parent, link.key, attributes, model))
    return ways


def derived(batch: MessageBatch, rows: Sequence[int]) -> MessageBatch:
    """What those rows become at other devices, as messages of their own. It accounts for no record."""
    out = MessageBatch(batch.runs, batch.targets, b"", [], [], [], [], [], [], [], [], [], [])
    ids = []
    for i in rows if batch.forwards else ():
        for forward in batch.forwards[i]:
            parent = batch.targets[forward.target]
            ids.append(derived_message_id(batch.ids[16 * i : 16 * i + 16], parent.device_id, forward.key))
            out.record.append(batch.record[i])
            out.message_index.append(batch.message_index[i])
            out.target_index.append(forward.target)
            out.flags.append(batch.flags[i] & ~KEYED | DERIVED)
            out.time.append(batch.time[i])
            out.received_time.append(batch.received_time[i])
            out.event_time.append(batch.event_time[i])
            out.data.append(forward.data)
            out.payloads.append(b"")
            if batch.time_error_ms:
                out.time_error_ms.append(batch.time_error_ms[i])
            out.current_only.append(forward.current_only)
            out.misfits.append(forward.misfits)
    return msgspec.structs.replace(out, ids=b"".join(ids))
