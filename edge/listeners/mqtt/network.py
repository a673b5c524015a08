"""The MQTT clients of one network: their sessions, who is connected, wills, and messages from device to device.

All MQTT listeners of the network share it, so that a device may come back by another port. No task and no await here:
what must be on disk first is said to the store (store.py), which calls back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from edge.credentials import Grant
from edge.listeners.filling import Owed
from edge.listeners.listener import Shared
from edge.listeners.mqtt.metadata import metadata_of
from edge.listeners.mqtt.store import SessionStore
from protocols.messages import Origin
from protocols.mqtt.connect import Connect, Will
from protocols.mqtt.errors import MqttError
from protocols.mqtt.exchange import Exchange
from protocols.mqtt.outbox import Message, Sending
from protocols.mqtt.packets import Subscribe, Subscription, Unsubscribe
from protocols.mqtt.properties import NO_PROPERTIES, Properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.session import EXPIRY_MAX_S, Match, Session, SessionKey, is_between_devices
from tidegate.console import UserError
from tidegate.logs import get_logger

if TYPE_CHECKING:
    from edge.listeners.mqtt.connection import MqttConnection

STORE_FILE: Final = "mqtt.db"

SESSIONS_OF_DEVICE_MAX: Final = 8
"""Kept for one device while their clients are away: one that takes a new client identifier each time must not fill the
disk. The one that has been away the longest makes room."""

SESSIONS_AWAY_MAX: Final = 20_000
"""The same for all devices of a network together: twice as many as a listener has connections, some 10 MB of memory."""

_NETWORKS: Final = "mqtt"
_STORE: Final = "mqtt store"
"""Under which the listeners find what they share."""

_SWEEP_TICKS: Final = 60
"""Seconds between two looks for sessions that are over."""


_log = get_logger("edge.mqtt")


class _PendingWill(msgspec.Struct, eq=False):
    will: Will
    origin: Origin
    due_ms: int


class MqttNetwork:
    def __init__(self, network_id: str, shared: Shared, store: SessionStore) -> None:
        self.network_id = network_id
        self.store = store
        self.exchange = Exchange()
        self.dropped: dict[str, int] = {}
        """Messages from device to device that found no room, by reason; they are recorded all the same."""
        self._shared = shared
        self._sessions: dict[SessionKey, Session] = {}
        self._of_device: dict[tuple[str, str], list[Session]] = {}
        self._here: dict[Session, MqttConnection] = {}
        self._away: dict[Session, None] = {}
        """Kept sessions without a client, the one that has been so the longest first."""
        self._by_device: dict[tuple[str, str], list[MqttConnection]] = {}
        self._wills: dict[Session, _PendingWill] = {}
        self._users = 0
        self._turner: object = None
        self._ticks = 0

    @property
    def talks(self) -> bool:
        """Whether its devices may talk to each other."""
        network = self._shared.registry.networks.get(self.network_id)
        return network is not None and network.device_talk

    def now_ms(self) -> int:
        true_ms = self._shared.true_ms
        return self._shared.collector.clock.wall_ms() if true_ms is None else true_ms()

    def is_logged(self, session: Session, packet_id: int) -> bool:
        """Whether a message of QoS 2 that the session holds was recorded."""
        key = session.held[packet_id]
        return key is None or self._shared.is_logged(key)

    # life

    def open(self, listener: str) -> None:
        self._users += 1
        if self._users > 1:
            return
        try:
            self.store.open()
            kept = self.store.load(self.network_id)
        except (OSError, sqlite3.Error) as error:
            self._users -= 1
            raise UserError(
                f"listener {listener!r} cannot keep sessions in {self._shared.data_dir / STORE_FILE}: {error}",
                "see that the disk is there and has room, and that this user may write to it",
            ) from error
        now_ms = self.now_ms()
        for message in kept.retained:
            self.exchange.retain(message)
        for session in sorted(kept.sessions, key=lambda each: each.left_ms or now_ms):
            session.left_ms = session.left_ms or now_ms
            session.held = {each: None for each in session.held if self.is_logged(session, each)}
            self._add(session)
            self._away[session] = None

    async def close(self) -> None:
        self._users -= 1
        self._turner = None
        if not self._users:
            self._shared.by_kind[_NETWORKS].pop(self.network_id, None)  # who comes later begins with what is kept
            await self.store.close()

    def publish_waiting_wills(self) -> None:
        """As its last listener closes: nobody would wait for them any more."""
        if self._users == 1:
            wills, self._wills = self._wills, {}
            for pending in wills.values():
                self._publish_will(pending.will, pending.origin)

    def turn(self, listener: object) -> None:
        """Once a second, for each of its listeners: one of them counts."""
        self._turner = self._turner or listener
        if self._turner is not listener:
            return
        now_ms = self.now_ms()
        for session, pending in list(self._wills.items()):
            if pending.due_ms <= now_ms:
                del self._wills[session]
                self._publish_will(pending.will, pending.origin)
        self._ticks += 1
        if self._ticks % _SWEEP_TICKS == 0:
            for session in [each for each in self._sessions.values() if each.is_over(now_ms)]:
                self._end(session)

    # connections

    def log_in(
        self, connection: MqttConnection, connect: Connect, grant: Grant, client_id: str
    ) -> tuple[Session, bool]:
        """The client's session, and whether it was there before (section 3.1.2.4). Another connection of the same
        client ends [MQTT-3.1.4-2]."""
        key = SessionKey(grant.alias_key, grant.alias, client_id)
        session = self._sessions.get(key)
        older = None if session is None else self._here.get(session)
        if older is not None:
            older.take_over()
        if session is not None and (connect.clean_start or session.is_over(self.now_ms())):
            self._end(session)
            session = None
        is_present = session is not None
        if session is None:
            session = Session(key)
            self._add(session)
        session.begin(connect)
        self._away.pop(session, None)
        self._wills.pop(session, None)
        if session.expiry_s:
            self.store.put_session(self.network_id, session)
        elif session.number:
            self.store.drop_session(session)
        self._here[session] = connection
        self._by_device.setdefault((grant.alias_key, grant.alias), []).append(connection)
        return session, is_present

    def left(self, connection: MqttConnection, session: Session, will: Will | None, origin: Origin | None) -> None:
        """The connection is over; `will`: to be published, as its client said no goodbye."""
        device = (session.key.alias_key, session.key.alias)
        connections = self._by_device.get(device, [])
        if connection in connections:
            connections.remove(connection)
            if not connections:
                del self._by_device[device]
        is_current = self._here.get(session) is connection
        if is_current:
            del self._here[session]
            session.left_ms = self.now_ms()
        if will is not None and origin is not None:
            delay_s = min(will.properties.will_delay_s or 0, session.expiry_s)
            if delay_s and is_current:
                self._wills[session] = _PendingWill(will, origin, session.left_ms + delay_s * 1000)
            elif is_current or not delay_s or self._sessions.get(session.key) is not session:
                self._publish_will(will, origin)  # a session that goes on elsewhere saves one that has a delay
        if not is_current:
            return
        if session.expiry_s:
            self.store.put_session(self.network_id, session)
            self._away[session] = None
            self._make_room(device)
        else:
            self._end(session)

    def connections(self, alias_key: str, alias: str) -> list[MqttConnection]:
        """Of a device, the newest last."""
        return self._by_device.get((alias_key, alias), [])

    def speaker(self, session: Session) -> MqttConnection | None:
        return self._here.get(session)

    # subscriptions

    def subscribe(self, session: Session, subscribe: Subscribe) -> tuple[list[int], list[Subscription]]:
        """What to answer for each, and those that want the retained messages (section 3.8.4)."""
        talks = self.talks
        codes: list[int] = []
        wanting: list[Subscription] = []
        for subscription in subscribe.subscriptions:
            try:
                reason, is_new = session.subscribe(subscription, talks=talks)
            except MqttError as error:
                codes.append(error.reason)
                continue
            codes.append(reason)
            if reason >= Reason.UNSPECIFIED:
                continue
            self.exchange.subscribe(session, subscription)
            if subscription.retain_handling == 0 or (subscription.retain_handling == 1 and is_new):
                wanting.append(subscription)
        self._keep(session)
        return codes, wanting

    def unsubscribe(self, session: Session, unsubscribe: Unsubscribe) -> list[int]:
        """What to answer for each."""
        codes: list[int] = []
        for name in unsubscribe.filters:
            known = session.subscriptions.pop(name, None) is not None
            codes.append(Reason.SUCCESS if known else Reason.NO_SUBSCRIPTION_EXISTED)
            if known:  # of what is not, the filter need not even be one: `$share/x`
                self.exchange.unsubscribe(session, name)
        self._keep(session)
        return codes

    def set_expiry(self, session: Session, expiry_s: int) -> None:
        """As DISCONNECT says (section 3.14.2.2.2)."""
        session.expiry_s = min(expiry_s, EXPIRY_MAX_S)
        if not session.expiry_s and session.number:
            self.store.drop_session(session)

    def _keep(self, session: Session) -> None:
        if session.number:
            self.store.put_session(self.network_id, session)

    # messages

    def publish(self, message: Message, sender: Session | None) -> None:
        """A message of a device that is recorded, to the others that want it."""
        if not is_between_devices(message.topic):
            return
        if message.retain:
            if self.exchange.retain(message):
                self.store.retain(self.network_id, message)
            else:
                self._drop("retained_full")
        for session, match in self.exchange.receivers(message.topic, sender, self._here.__contains__):
            self.offer(session, message, match, retain=message.retain and match.retain_as_published)

    def offer(self, session: Session, message: Message, match: Match, *, retain: bool) -> None:
        """To one session: at once, or once its client is back (section 4.1)."""
        connection = self._here.get(session)
        outgoing = None if connection is None else connection.outgoing
        qos = min(message.qos, match.qos)
        sending = Sending(message, qos, retain, match.identifiers)
        if qos == 0:
            if outgoing is not None:
                outgoing.send_at_once(sending)
        elif not session.outbox.offer(sending):
            self._drop("queue_full")
        else:
            if session.number:
                self.store.send(session, sending)
            if outgoing is not None:
                outgoing.pump()

    def message(self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties) -> Message:
        """As receivers get it: with the properties that are for them (section 3.3.2.3), its expiry by the clock."""
        if properties is NO_PROPERTIES:
            return Message(topic, payload, qos, retain)
        expiry_s = properties.message_expiry_s
        expires_ms = 0 if expiry_s is None else self.now_ms() + expiry_s * 1000
        forwarded = msgspec.structs.replace(
            properties, message_expiry_s=None, topic_alias=None, will_delay_s=None, subscription_ids=()
        )
        return Message(topic, payload, qos, retain, forwarded, expires_ms)

    def _publish_will(self, will: Will, origin: Origin) -> None:
        """Recorded as a message of its device, then sent to those that want it."""
        message = self.message(will.topic, will.payload, will.qos, will.retain, will.properties)
        waiter = _Recorded(lambda: self.publish(message, None) if self.talks else None)
        self._shared.collector.add(origin, [will.payload], waiter, metadata=metadata_of(will.properties))

    def _drop(self, reason: str) -> None:
        count = self.dropped[reason] = self.dropped.get(reason, 0) + 1
        if count.bit_count() == 1:  # said ever more seldom
            _log.warning("message between devices dropped", network=self.network_id, reason=reason, count=count)

    # sessions

    def _add(self, session: Session) -> None:
        self._sessions[session.key] = session
        self._of_device.setdefault((session.key.alias_key, session.key.alias), []).append(session)
        for subscription in session.subscriptions.values():
            self.exchange.subscribe(session, subscription)

    def _end(self, session: Session) -> None:
        """Forgets it; a will that waits is due now (section 3.1.3.2.2)."""
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
        self._here.pop(session, None)
        self._away.pop(session, None)
        device = (session.key.alias_key, session.key.alias)
        sessions = self._of_device.get(device, [])
        if session in sessions:
            sessions.remove(session)
            if not sessions:
                del self._of_device[device]
        for name in session.subscriptions:
            self.exchange.unsubscribe(session, name)
        if session.number:
            self.store.drop_session(session)
        pending = self._wills.pop(session, None)
        if pending is not None:
            self._publish_will(pending.will, pending.origin)

    def _make_room(self, device: tuple[str, str]) -> None:
        away = [each for each in self._of_device.get(device, ()) if each.left_ms]
        if len(away) > SESSIONS_OF_DEVICE_MAX:
            self._end(min(away, key=lambda each: each.left_ms))
        elif len(self._away) > SESSIONS_AWAY_MAX:
            self._end(next(iter(self._away)))


class _Recorded:
    """A waiter of one message that nobody waits for."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def recorded(self, owed: Owed) -> None:
        self._then()

    def refused(self, owed: Owed, code: str) -> None:
        """The collector has counted it."""


def network_of(network_id: str, shared: Shared) -> MqttNetwork:
    """One for all listeners of the network."""
    networks: dict[str, MqttNetwork] = shared.by_kind.setdefault(_NETWORKS, {})
    if network_id not in networks:
        store: SessionStore | None = shared.by_kind.get(_STORE)
        if store is None or store.is_closed:
            store = shared.by_kind[_STORE] = SessionStore(shared.data_dir / STORE_FILE)
        networks[network_id] = MqttNetwork(network_id, shared, store)
    return networks[network_id]
