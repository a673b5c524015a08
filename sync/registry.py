"""The registry: what is known of networks, blueprints and devices, by revision. The cloud's services and each gateway
hold a replica of the projects that concern them; a replica starts from a snapshot and takes changes in order."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocols.codecs import CodecSpec, Decoder, decoder_of
from protocols.messages import DEFAULT_ROUTE, Route
from protocols.shipment import Target


class Network(msgspec.Struct, frozen=True):
    """A source of device data: a namespace of aliases, with its codec."""

    id: str
    alias_key: str = "serial"
    """The alias key of devices that connect under a plain name."""
    spec: CodecSpec = CodecSpec()
    secret_sha256: tuple[str, ...] = ()
    """The network's own credential (hex), which lets devices in that the registry does not know; several overlap while
    one is rotated."""
    device_talk: bool = False
    """Whether its devices may subscribe to what others of them publish."""


class Blueprint(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    route: Route | None = None
    attributes: str = "{}"
    """As the cloud keeps them, JSON (cloud/model/blueprint.py). Gateways are told none: values are looked at in the
    cloud, once."""


class Alias(msgspec.Struct, frozen=True, array_like=True):
    network_id: str
    alias_key: str
    alias: str


class Parent(msgspec.Struct, frozen=True, array_like=True):
    """A device that another one is related to, by a relationship of its blueprint."""

    device_id: int
    key: str


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    id: int
    system_id: str
    blueprint_id: str
    aliases: tuple[Alias, ...] = ()
    route: Route | None = None
    secret_sha256: tuple[str, ...] = ()
    parents: tuple[Parent, ...] = ()
    """Some may be gone, or their blueprints may declare no such relationship any more."""


class RegistryChange(msgspec.Struct, frozen=True):
    """What leads from `base` to `revision` of one project; `base` 0: everything, a snapshot."""

    project_id: str
    base: int
    revision: int
    networks: tuple[Network, ...] = ()
    blueprints: tuple[Blueprint, ...] = ()
    devices: tuple[Device, ...] = ()
    gone_networks: tuple[str, ...] = ()
    gone_blueprints: tuple[str, ...] = ()
    gone_devices: tuple[int, ...] = ()


class StaleReplicaError(Exception):
    """Ask for a snapshot: the change does not start where this replica stands."""


class Registry:
    """A replica of one project."""

    def __init__(self, project_id: str) -> None:
        self.project_id = project_id
        self.revision = 0
        self.networks: dict[str, Network] = {}
        self.blueprints: dict[str, Blueprint] = {}
        self.devices: dict[int, Device] = {}
        self._by_alias: dict[Alias, Device] = {}
        self._decoders: dict[tuple[str, str], Decoder] = {}

    def apply(self, change: RegistryChange) -> None:
        """Takes a snapshot, or the change that follows; one that is already held is passed over."""
        if change.project_id != self.project_id:
            raise StaleReplicaError(f"change of project {change.project_id}, replica of {self.project_id}")
        if change.base == 0:
            self._clear()
        elif change.revision <= self.revision:
            return
        elif change.base > self.revision:
            raise StaleReplicaError(f"change starts at revision {change.base}, the replica stands at {self.revision}")
        for network_id in change.gone_networks:
            self.networks.pop(network_id, None)
        for blueprint_id in change.gone_blueprints:
            self.blueprints.pop(blueprint_id, None)
        self._forget(change.gone_devices)
        self._forget(device.id for device in change.devices)
        self.networks.update((network.id, network) for network in change.networks)
        self.blueprints.update((blueprint.id, blueprint) for blueprint in change.blueprints)
        for device in change.devices:
            self.devices[device.id] = device
            for alias in device.aliases:
                self._by_alias[alias] = device
        self._decoders.clear()
        self.revision = change.revision

    def snapshot(self) -> RegistryChange:
        return RegistryChange(
            self.project_id,
            0,
            self.revision,
            tuple(self.networks.values()),
            tuple(self.blueprints.values()),
            tuple(self.devices.values()),
        )

    def device(self, network_id: str, alias_key: str, alias: str) -> Device | None:
        return self._by_alias.get(Alias(network_id, alias_key, alias))

    def target(self, network_id: str, alias_key: str, alias: str) -> Target:
        """Who messages under this name are from; `device_id` 0 where nobody is known by it."""
        device = self.device(network_id, alias_key, alias)
        if device is None:
            return Target(self.project_id, network_id, alias_key, alias, 0, "", "", {}, self.revision)
        return self._target(network_id, alias_key, alias, device)

    def target_of(self, device: Device) -> Target:
        """Of messages that came under no name, as they are made here."""
        return self._target("", "", "", device)

    def _target(self, network_id: str, alias_key: str, alias: str, device: Device) -> Target:
        blueprint = self.blueprints.get(device.blueprint_id)
        route = device.route or (blueprint.route if blueprint else None) or DEFAULT_ROUTE
        return Target(
            self.project_id,
            network_id,
            alias_key,
            alias,
            device.id,
            device.blueprint_id,
            device.system_id,
            route,
            self.revision,
        )

    def decoder(self, network_id: str, hint: str) -> Decoder:
        """The decoder for a record of the network, by the listener's hint or else the network's codec. KeyError names
        the network that does not exist."""
        found = self._decoders.get((network_id, hint))
        if found is None:
            found = self._decoders[network_id, hint] = decoder_of(self.networks[network_id].spec, hint)
        return found

    def _forget(self, device_ids: Iterable[int]) -> None:
        for device_id in device_ids:
            old = self.devices.pop(device_id, None)
            if old is not None:
                for alias in old.aliases:
                    if self._by_alias.get(alias) is old:
                        del self._by_alias[alias]

    def _clear(self) -> None:
        for held in (self.networks, self.blueprints, self.devices, self._by_alias, self._decoders):
            held.clear()
