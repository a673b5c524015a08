"""A serial line: one end of a pseudo-terminal, as an adapter by USB is one. The gateway opens the other end by the
link that is made to it; the device sees that, as the modem line DTR says it."""

from __future__ import annotations

import errno
import os
import select
import tty
from pathlib import Path
from typing import Final

from firmware_sim.devices.carriers.carrier import Owner
from firmware_sim.devices.carriers.turns import Item, TurnCarrier
from firmware_sim.devices.lines import END, LineReader, frame_of
from firmware_sim.devices.packets import ProtocolError
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime

LOOK_S: Final = 0.05
"""How often it is looked whether the port is open."""
SETTLE_S: Final = 0.1
"""From DTR to the first frame: whoever opens a port forgets what came before. A frame that is lost all the same goes
again."""
READ_BYTES: Final = 4096


class SerialCarrier(TurnCarrier):
    """From plugging in to unplugging, or until the gateway closes the port. A device without an answer plugs itself in
    anew, as firmware does that resets its adapter: what was on the line is gone then, and no answer is taken for
    another's."""

    makes_its_place = True

    def __init__(self, owner: Owner, identity: RosterDevice, settings: DeviceSettings, runtime: Runtime) -> None:
        super().__init__(owner, identity, settings, runtime)
        self._reader = LineReader()
        self._link = Path(identity.path)
        self._port = ""
        self._line: int | None = None
        self._reads = False

    async def open(self) -> None:
        """Plugs it in."""
        if self._has_ended:
            return
        self._line, other = os.openpty()
        try:
            tty.setraw(other)
            os.set_blocking(self._line, False)
            self._port = os.ttyname(other)
            _put_link(self._link, self._port)
        except OSError:
            os.close(self._line)
            self._line = None
            raise
        finally:
            os.close(other)
        self._look()

    def _look(self) -> None:
        """Until the gateway has opened the port."""
        if self._line is None:
            return
        if _is_hung_up(self._line):
            self._timers.after(LOOK_S, self._look)
            return
        self._reads = True
        self._runtime.loop.add_reader(self._line, self._readable)
        self._timers.after(SETTLE_S, self._settle)

    def _settle(self) -> None:
        if not self._has_ended:
            self._stands()

    def _transmit(self, item: Item) -> None:
        assert self._line is not None
        frame = frame_of(item) + END
        try:
            written = os.write(self._line, frame)
        except OSError:
            written = 0
        if written < len(frame):
            self._end("the line takes no more")
            return
        self._expect(item, self._settings.resend_s)

    def _readable(self) -> None:
        assert self._line is not None
        try:
            data = os.read(self._line, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end("the gateway closed the port")
            return
        try:
            self._received(data)
        except ProtocolError as error:
            self._end(str(error), refused=True)

    def _received(self, data: bytes) -> None:
        acknowledged, orders = self._reader.feed(data)
        for _ in range(acknowledged):
            if self._under_way is None:
                raise ProtocolError("more frames are acknowledged than were sent")
            self._done()
        for order in orders:
            answer = self._owner.told(self, order.command, order.id)
            if answer is not None:
                self.answer(answer)

    def _shut(self) -> None:
        if self._line is None:
            return
        if self._reads:
            self._runtime.loop.remove_reader(self._line)
        if _target(self._link) == self._port:
            self._link.unlink()
        os.close(self._line)
        self._line = None


def _put_link(link: Path, port: str) -> None:
    """In place of an earlier one. Raises OSError; also where something else is."""
    if link.exists() and not link.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(link))
    aside = link.with_name(f"{link.name}.new")
    aside.unlink(missing_ok=True)
    aside.symlink_to(port)
    aside.replace(link)


def _target(link: Path) -> str:
    return os.readlink(link) if link.is_symlink() else ""


def _is_hung_up(line: int) -> bool:
    """Nobody has the other end open."""
    looking = select.poll()
    looking.register(line, 0)
    return any(events & select.POLLHUP for _, events in looking.poll(0))
