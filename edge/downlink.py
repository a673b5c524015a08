"""What the cloud sends: changes of the registry into the replica, commands to devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edge.courier import Courier
from edge.listeners.listener import Listener
from edge.listeners.way import Way
from edge.presence import Name
from edge.replica import Replica
from protocols.messages import Command
from sync.link.frames import CommandKept
from sync.registry import Registry, RegistryChange
from tidegate.logs import get_logger

_log = get_logger("edge.downlink")


class Ways:
    """To devices, through the listeners of their networks, as things are now."""

    def __init__(self, registry: Registry, listeners: Sequence[Listener], there_s: Callable[[Name], float]) -> None:
        """`there_s`: when the device of that name was there last; 0: never."""
        self._registry = registry
        self._listeners = listeners
        self._there_s = there_s

    def to(self, device_id: int) -> Iterator[tuple[str, Way | None]]:
        """Where the device might be, and the way there, if it is there. Where it was last comes first. Once it was
        somewhere, only such places count, and a way that nobody confirms only where it was last: what takes commands
        for anybody (a broker, a line) would keep those of a device that has gone elsewhere."""
        device = self._registry.devices.get(device_id)
        places = [
            (self._there_s((listener.name, alias.network_id, alias.alias_key, alias.alias)), alias, listener)
            for alias in (device.aliases if device is not None else ())
            for listener in self._listeners
            if listener.network_id == alias.network_id
        ]
        places.sort(key=lambda place: place[0], reverse=True)
        last_s = places[0][0] if places else 0.0
        for there_s, alias, listener in places:
            if last_s and not there_s:
                return
            way = listener.way(alias.alias_key, alias.alias)
            if way is None or way.confirms or there_s == last_s:
                yield f"{alias.alias_key}:{alias.alias} at {listener.name}", way


class GatewayDownlink:
    """The link's Downlink."""

    def __init__(self, replica: Replica, listeners: Sequence[Listener], courier: Courier) -> None:
        self._replica = replica
        self._listeners = listeners
        self._courier = courier
        self._warned: set[str] = set()

    async def registry_changed(self, change: RegistryChange) -> None:
        await self._replica.apply(change)
        for listener in self._listeners:
            listener.recheck()
        self.check_networks()

    def check_networks(self) -> None:
        """Warns, once, of each listener whose network the registry does not have: nobody can log in there, and
        what comes is of no device."""
        for listener in self._listeners:
            network = listener.network_id
            if self._replica.has_network(network):
                self._warned.discard(network)
            elif network not in self._warned:
                self._warned.add(network)
                project = self._replica.registry.project_id
                reason = f"network {network} is not in project {project}"
                _log.warning("network is not known", listener=listener.name, reason=reason)

    async def command_arrived(self, command: Command) -> None:
        self._courier.arrived(command)

    def linked(self, *, confirmed: bool) -> None:
        self._courier.linked(confirmed=confirmed)

    def command_kept(self, kept: CommandKept) -> None:
        self._courier.kept(kept)
