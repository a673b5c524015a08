"""Makes the moments of a scenario happen when they are due, and says what happens now and what comes next."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from firmware_sim.devices.device import Device
from firmware_sim.faults.fault import Direction, Fault, Kind
from firmware_sim.fleet import Fleet
from firmware_sim.scenarios.events import (
    AnyEvent,
    BlackHole,
    BrownOut,
    Burst,
    Cut,
    Delay,
    Duplicates,
    Flap,
    Kill,
    Late,
    LinkEvent,
    Loss,
    Malformed,
    PartEvent,
    Pause,
    Restart,
    Stall,
    Throttle,
    Unplug,
    WrongClock,
)
from firmware_sim.scenarios.site import NotPossibleError, Site
from firmware_sim.scenarios.timeline import EACH_MIN_S, Moment

_KINDS: Final[dict[type, Kind]] = {
    Cut: Kind.CUT,
    BlackHole: Kind.BLACK_HOLE,
    Stall: Kind.STALL,
    Delay: Kind.DELAY,
    Throttle: Kind.THROTTLE,
    Loss: Kind.LOSS,
    Flap: Kind.FLAP,
}


class Part(enum.StrEnum):
    """What of a site something befalls."""

    LINK = "link"
    SITE = "site"
    """Gateway and cloud."""
    DEVICES = "devices"


class Happening(msgspec.Struct, frozen=True):
    """A moment that came. Seconds since the start, as they passed here."""

    at_s: float
    until_s: float
    what: str
    note: str
    devices: tuple[str, ...]
    left_out: str = ""
    """Why it could not be done; empty: it was."""
    part: Part = Part.DEVICES


class Director:
    """`speed`: how much faster than written. `clock`: seconds that never go back."""

    def __init__(
        self, moments: Sequence[Moment], fleet: Fleet, site: Site, *, speed: float, clock: Callable[[], float]
    ) -> None:
        self._moments = moments
        self._fleet = fleet
        self._site = site
        self._speed = speed
        self._clock = clock
        self._start_s = 0.0
        self._clocks: dict[int, Moment] = {}
        """What made a device's clock wrong last, by its place."""
        self.happened: list[Happening] = []

    async def run(self) -> None:
        """From now until the last moment has begun."""
        self._start_s = self._clock()
        for moment in self._moments:
            await asyncio.sleep(max(self._due_s(moment.at_s) - self._clock(), 0.0))
            await self._let(moment)

    def now_and_next(self) -> tuple[str, str]:
        """What goes on, and what comes, in words; empty: nothing."""
        passed_s = self._clock() - self._start_s
        going_on = [
            f"{happening.what}, {happening.until_s - passed_s:.0f} s left"
            for happening in self.happened
            if not happening.left_out and happening.until_s > passed_s
        ]
        coming = self._moments[len(self.happened)] if len(self.happened) < len(self._moments) else None
        if coming is None:
            return " + ".join(going_on), ""
        in_s = max(coming.at_s / self._speed - passed_s, 0.0)
        return " + ".join(going_on), f"in {in_s:.0f} s: {coming.text}"

    async def _let(self, moment: Moment) -> None:
        left_out = ""
        try:
            await self._begin(moment)
        except NotPossibleError as error:
            left_out = str(error)
        at_s = self._clock() - self._start_s
        self.happened.append(
            Happening(
                round(at_s, 3),
                round(at_s + self._lasting_s(moment), 3),
                moment.text,
                moment.event.note,
                tuple(device.identity.name for device in self._devices(moment)),
                left_out,
                _part(moment.event),
            )
        )

    async def _begin(self, moment: Moment) -> None:
        event, lasting_s = moment.event, self._lasting_s(moment)
        match event:
            case Cut() | BlackHole() | Stall() | Delay() | Throttle() | Loss() | Flap():
                await self._site.break_link(_fault(event, lasting_s, self._speed))
            case Kill():
                self._site.kill(event.part)
            case Pause():
                self._site.pause(event.part)
                self._later(lasting_s, lambda: self._site.resume(event.part))
            case Burst():
                self._fleet.pace *= event.factor
                self._later(lasting_s, lambda: self._end_burst(event.factor))
            case WrongClock():
                self._set_wrong(moment, event)
                self._later(lasting_s, lambda: self._set_right(moment))
            case BrownOut():
                for device in self._devices(moment):
                    device.fail_power(lasting_s)
            case Restart():
                for device in self._devices(moment):
                    device.restart(lasting_s)
            case Late():
                for device in self._devices(moment):
                    device.hold(lasting_s)
            case Unplug():
                for device in self._devices(moment):
                    device.unplug(lasting_s)
            case Duplicates():
                for device in self._devices(moment):
                    device.repeat(event.messages)
            case Malformed():
                for device in self._devices(moment):
                    device.garble(event.messages)

    def _set_wrong(self, moment: Moment, event: WrongClock) -> None:
        for place in moment.places:
            self._clocks[place] = moment
            clock = self._fleet.devices[place].clock
            if event.unset:
                clock.unset()
            else:
                clock.set_wrong(round(1000 * event.by), event.drift_ppm)

    def _set_right(self, moment: Moment) -> None:
        """Those that nothing else has set wrong since."""
        for place in moment.places:
            if self._clocks.get(place) is moment:
                self._fleet.devices[place].clock.set_right()

    def _end_burst(self, factor: float) -> None:
        self._fleet.pace /= factor

    def _devices(self, moment: Moment) -> list[Device]:
        return [self._fleet.devices[place] for place in moment.places]

    def _due_s(self, timeline_s: float) -> float:
        return self._start_s + timeline_s / self._speed

    def _lasting_s(self, moment: Moment) -> float:
        return (moment.until_s - moment.at_s) / self._speed

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, call)


def _part(event: AnyEvent) -> Part:
    if isinstance(event, LinkEvent):
        return Part.LINK
    return Part.SITE if isinstance(event, PartEvent) else Part.DEVICES


def _fault(event: LinkEvent, seconds: float, speed: float) -> Fault:
    fault = Fault(_KINDS[type(event)], seconds=seconds)
    match event:
        case Loss() | Flap():
            return msgspec.structs.replace(fault, every_s=max(event.each / speed, EACH_MIN_S))
        case Cut():
            return fault
    fault = msgspec.structs.replace(fault, direction=Direction(event.direction))
    match event:
        case Delay():
            return msgspec.structs.replace(fault, delay_ms=1000 * event.latency)
        case Throttle():
            return msgspec.structs.replace(fault, bytes_per_s=event.bytes_per_s)
    return fault
