"""Object security (OSCORE, RFC 8613): requests that are protected end to end, whatever carries them. By aiocoap, with
this listener's messages turned into its own and back.

A security context is a folder, as aiocoap's FilesystemSecurityContext keeps it: `settings.json` with the keys, and
`sequence.json`, which is written here. After a crash the window of replays is not known, and the first request of a
device is answered with a challenge (Echo, appendix B.1.2), which its library answers by itself.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import aiocoap
from aiocoap import error, oscore
from aiocoap.numbers.optionnumbers import OptionNumber

from edge.listeners.coap import answers
from edge.listeners.coap.answers import Answer
from edge.listeners.config import device_of
from protocols.coap.message import Message
from protocols.coap.numbers import Code, Option
from protocols.templates import Name
from tidegate.console import UserError

CONTEXTS_MAX: Final = 10_000
"""As many devices as may observe; each takes about 4 kB and an open file."""

PARTIAL_IV_BYTES_MAX: Final = 5
"""Section 6.1; the header has room for two more."""

_REMEDY: Final = (
    "give it settings.json with sender-id_hex, recipient-id_hex and secret_hex, as docs/guides/coap.md says"
)

logging.getLogger("aiocoap").setLevel(logging.CRITICAL)
"""What goes wrong with a request is said in its answer and counted here."""


class _StoredContext(oscore.FilesystemSecurityContext):  # type: ignore[misc]
    """One that cannot be read is let go at once: it would try to write at its end what it does not have."""

    def __init__(self, place: Path) -> None:
        """Raises OSError, ValueError, KeyError."""
        self.lockfile = None
        is_read = False
        try:
            super().__init__(str(place))
            is_read = True
        finally:
            if not is_read and self.lockfile is not None:
                self.lockfile.release()
                self.lockfile = None


class OscoreSeal:
    """A Seal."""

    def __init__(self, name: Name, context: Any, request_id: Any) -> None:
        self.name = name
        self.key = id(context)
        self._context = context
        self._request_id = request_id

    def close(self, answer: Answer) -> Answer:
        """A notification says outside that it is one, and in which order (section 4.1.3.5)."""
        inner = aiocoap.Message(code=answer.code, payload=answer.payload)
        outer_options = []
        for number, value in answer.options:
            if number == Option.OBSERVE:
                outer_options.append((number, value))
                value = b""
            inner.opt.add_option(OptionNumber(number).create_option(decode=value))
        protected, _ = self._context.protect(inner, self._request_id)
        outer_options += [
            (int(option.number), option.encode())
            for option in protected.opt.option_list()
            if option.number != Option.OBSERVE
        ]
        return Answer(
            int(protected.code), protected.payload, tuple(sorted(outer_options)), answer.refusal, answer.detail
        )


class Contexts:
    """Of the devices of one listener."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where one cannot be used."""
        self._contexts: dict[tuple[bytes, bytes | None], tuple[Name, Any]] = {}
        try:
            places = sorted(place for place in folder.iterdir() if place.is_dir())
        except OSError as problem:
            raise UserError(f"oscore {folder}: {problem.strerror or problem}", "give a folder that is there") from None
        if len(places) > CONTEXTS_MAX:
            raise UserError(f"oscore {folder}: more than {CONTEXTS_MAX:,} contexts", "give them to several listeners")
        try:
            for place in places:
                self._add(place)
        except UserError:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._contexts)

    def open(self, message: Message) -> tuple[Message, OscoreSeal] | Answer:
        """What is inside of a message with the option OSCORE, or what is wrong with it."""
        if message.code not in (Code.POST, Code.FETCH):
            return answers.wrong_method(message.code, (Code.POST, Code.FETCH))
        outer = aiocoap.Message(code=message.code, payload=message.payload)
        outer.opt.oscore = message.value(Option.OSCORE)
        outer.opt.observe = message.number(Option.OBSERVE)
        outer.direction = aiocoap.message.Direction.INCOMING
        try:
            header = oscore.verify_start(outer)
            if oscore.COSE_COUNTERSIGNATURE0 in header or len(header.get(oscore.COSE_PIV, b"")) > PARTIAL_IV_BYTES_MAX:
                raise oscore.DecodeError
            known = self._contexts.get((header.get(oscore.COSE_KID), header.get(oscore.COSE_KID_CONTEXT)))
            if known is None:
                return answers.refused(Code.UNAUTHORIZED, "oscore", "Security context not found")
            name, context = known
            inner, request_id = context.unprotect(outer)
        except oscore.ReplayErrorWithEcho as challenge:
            return _challenge(challenge)
        except oscore.ReplayError:
            return answers.refused(Code.UNAUTHORIZED, "oscore_replay", "Replay detected", ((int(Option.MAX_AGE), b""),))
        except oscore.DecodeError:
            return answers.refused(Code.BAD_OPTION, "oscore", "Failed to decode COSE")
        except (oscore.ProtectionInvalid, error.Error, ValueError, IndexError):
            return answers.refused(Code.BAD_REQUEST, "oscore", "Decryption failed")
        options = tuple((int(option.number), option.encode()) for option in inner.opt.option_list())
        opened = Message(message.kind, int(inner.code), message.message_id, message.token, options, inner.payload)
        return opened, OscoreSeal(name, context, request_id)

    def close(self) -> None:
        """Writes where each context stands, so that the next start needs no challenge."""
        for _, context in self._contexts.values():
            context._destroy()  # what aiocoap does itself when nobody holds a context any more
        self._contexts.clear()

    def _add(self, place: Path) -> None:
        try:
            name = device_of(place.name)
            context = _StoredContext(place)
        except TimeoutError:
            raise UserError(f"oscore {place}: another process uses it", "end it, or give each its own folder") from None
        except (OSError, ValueError, KeyError) as problem:
            raise UserError(f"oscore {place}: {problem}", _REMEDY) from None
        key = (context.recipient_id, context.id_context)
        if key in self._contexts:
            context._destroy()
            other = self._contexts[key][0]
            raise UserError(
                f"oscore {place}: {other.alias_key}:{other.alias} has the same recipient-id", "give each its own"
            )
        self._contexts[key] = (name, context)


def _challenge(challenge: Any) -> Answer:
    """It is protected already."""
    told = challenge.to_message()
    options = tuple((int(option.number), option.encode()) for option in told.opt.option_list())
    return Answer(int(told.code), told.payload, options)
