"""What a request is answered, once it is read and no message that came before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge.credentials import Credentials, Grant, Refusal
from edge.listeners.coap import answers
from edge.listeners.coap.answers import Answer
from edge.listeners.coap.config import CoapConfig
from edge.listeners.coap.core_links import links
from edge.listeners.coap.limits import CORE_BLOCK_BYTES_MAX, ORIGINS_MAX
from edge.listeners.coap.observers import Observers
from edge.listeners.coap.parts import part_of
from edge.listeners.coap.requests import Request
from edge.listeners.coap.routes import METHODS, Purpose, Route, Routes
from edge.listeners.coap.uploads import Uploads
from edge.listeners.config import priority_rules
from edge.listeners.priorities import Priorities
from protocols.coap.message import Block, Message, uint
from protocols.coap.numbers import LINK_FORMAT, Code, Option
from protocols.codecs.media import CONTENT_FORMATS, codec_of_content_format
from protocols.messages import Origin, Priority
from protocols.templates import Name
from sync.registry import Network, Registry

KEY: Final = "key="
"""Of a query: the password, or ALIAS:PASSWORD where the path names no device."""

Record = Callable[[Request, Origin, bytes], Answer | None]
"""Hands a payload to the collector; None: the answer follows when it is recorded."""


class Service:
    def __init__(
        self, config: CoapConfig, registry: Registry, credentials: Credentials, observers: Observers, record: Record
    ) -> None:
        self.uploads = Uploads()
        self._config = config
        self._registry = registry
        self._credentials = credentials
        self._observers = observers
        self._record = record
        self._routes = Routes(config.paths)
        self._priorities = Priorities(priority_rules(config.priorities))
        self._origins: dict[tuple[Name, str, str], Origin] = {}

    def answer(self, request: Request, now_s: float) -> Answer | None:
        """None: it follows when the record is on disk. Raises MalformedError."""
        message = request.message
        if message.value(Option.PROXY_URI) is not None or message.value(Option.PROXY_SCHEME) is not None:
            return answers.NO_PROXY
        path = "/".join(message.texts(Option.URI_PATH))
        route = self._routes.find(path)
        if route is None:
            return answers.no_path(path, self._routes.templates)
        allowed = METHODS[route.purpose]
        if message.code not in allowed:
            return answers.wrong_method(message.code, allowed)
        if route.purpose is Purpose.CORE:
            return self._core(message)
        grant = self._log_in(request, route, now_s)
        if isinstance(grant, Answer):
            return grant
        if route.purpose is Purpose.COMMANDS:
            if not grant.alias:
                return answers.NO_DEVICE
            return self._observers.asked(request, grant, now_s)
        return self._uplink(request, route, grant, path, now_s)

    def _uplink(self, request: Request, route: Route, grant: Grant, path: str, now_s: float) -> Answer | None:
        message = request.message
        content_format = message.number(Option.CONTENT_FORMAT)
        is_response = route.purpose is Purpose.RESPONSE
        any_format = bool(self._config.codec) or is_response
        if content_format is not None and content_format not in CONTENT_FORMATS and not any_format:
            return answers.unsupported_format(content_format, CONTENT_FORMATS)
        payload = message.payload
        request.block = message.block(Option.BLOCK1)
        if request.block is not None:
            whole = self._put_together(request, request.block, path, now_s)
            if isinstance(whole, Answer):
                return whole
            payload = whole
        if not payload:
            return answers.EMPTY
        name = Name(grant.alias_key, grant.alias)
        if is_response:
            origin = self._origin(name, path, "response", Priority.EVENT)
        else:
            codec = self._config.codec or codec_of_content_format(content_format)
            origin = self._origin(name, path, codec, self._priorities.of(path))
        return self._record(request, origin, payload)

    def _put_together(self, request: Request, block: Block, path: str, now_s: float) -> bytes | Answer:
        message = request.message
        sender = request.peer.address if request.seal is None else request.seal.key
        key = (sender, message.code, path, *message.values(Option.REQUEST_TAG))
        size = message.number(Option.SIZE1)
        return self.uploads.add(key, request.source, block, message.payload, size, now_s)

    def _log_in(self, request: Request, route: Route, now_s: float) -> Grant | Answer:
        """Who speaks: by the security context, else by what an open listener believes, else by `?key=`."""
        name = route.name
        if request.seal is not None:
            known = request.seal.name
            if name.alias and name != known:
                return answers.OTHER_DEVICE
            return Grant(known.alias_key, known.alias, "")
        if self._config.open:
            return Grant(name.alias_key or self._alias_key(), name.alias, "")
        key = next((text for text in request.message.texts(Option.URI_QUERY) if text.startswith(KEY)), None)
        user_name, password = f"{name.alias_key}:{name.alias}" if name.alias else "", None
        if key is not None:
            secret = key.removeprefix(KEY)
            if not name.alias:
                user_name, _, secret = secret.rpartition(":")
            password = secret.encode()
        verdict = self._credentials.check(user_name, password, address=request.peer.host, now_s=now_s)
        if isinstance(verdict, Refusal):
            return answers.not_allowed(verdict.code, verdict.detail)
        return verdict

    def _core(self, message: Message) -> Answer:
        if message.number(Option.ACCEPT) not in (None, LINK_FORMAT):
            return answers.NOT_ACCEPTABLE
        body = links(self._routes.templates, message.texts(Option.URI_QUERY))
        content = Answer(Code.CONTENT, body, ((Option.CONTENT_FORMAT, uint(LINK_FORMAT)),))
        return part_of(content, message.block(Option.BLOCK2), CORE_BLOCK_BYTES_MAX)

    def _alias_key(self) -> str:
        """Of devices that the path does not name."""
        network = self._registry.networks.get(self._config.network)
        return (network or Network(self._config.network)).alias_key

    def _origin(self, name: Name, topic: str, codec: str, priority: Priority) -> Origin:
        key = (name, topic, codec)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            origin = self._origins[key] = Origin(
                self._config.network, name.alias_key, name.alias, topic, codec, self._config.name, priority
            )
        return origin
