"""What sensors measure, made up: pure generators of values, seeded, and the profiles that put them together.

A signal is asked for its value at a time in seconds since its device was first switched on. Asked at the same times, a
signal of the same seed gives the same values, on any machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

Value = float | int | bool | str | dict[str, float]


class Signal(Protocol):
    """One sensor. Times are asked in rising order."""

    def sample(self, at_s: float) -> Value: ...


class RandomWalk:
    """Drifts between `low` and `high`, by about `step` a second, and turns back at the ends."""

    def __init__(
        self, rng: random.Random, *, low: float, high: float, step: float, start: float | None = None, digits: int = 1
    ) -> None:
        if not low < high:
            raise ValueError(f"low {low} is not below high {high}")
        self._rng = rng
        self._low, self._high, self._step, self._digits = low, high, step, digits
        self._value = rng.uniform(low, high) if start is None else min(max(start, low), high)
        self._at_s = 0.0

    def sample(self, at_s: float) -> float:
        # The spread of a random walk grows with the square root of the time.
        spread = self._step * math.sqrt(max(at_s - self._at_s, 0.0))
        self._at_s = at_s
        self._value = _reflect(self._value + self._rng.gauss(0.0, spread), self._low, self._high)
        return round(self._value, self._digits)


class Sine:
    """Swings by `amplitude` about `mean`, once in `period_s`, with Gaussian noise on top."""

    def __init__(
        self,
        rng: random.Random,
        *,
        mean: float,
        amplitude: float,
        period_s: float,
        noise: float = 0.0,
        digits: int = 2,
    ) -> None:
        self._rng = rng
        self._mean, self._amplitude, self._period_s = mean, amplitude, period_s
        self._noise, self._digits = noise, digits
        self._phase = rng.uniform(0.0, 2 * math.pi)

    def sample(self, at_s: float) -> float:
        swing = self._amplitude * math.sin(self._phase + 2 * math.pi * at_s / self._period_s)
        noise = self._rng.gauss(0.0, self._noise) if self._noise else 0.0
        return round(self._mean + swing + noise, self._digits)


class Counter:
    """Counts up by `per_s` a second from `start`, in whole steps, as a meter does."""

    def __init__(self, *, per_s: float, start: int = 0) -> None:
        self._per_s, self._start = per_s, start

    def sample(self, at_s: float) -> int:
        return self._start + math.floor(at_s * self._per_s)


class Square:
    """True for the share `duty` of each period, then False."""

    def __init__(self, rng: random.Random, *, period_s: float, duty: float = 0.5) -> None:
        self._period_s, self._duty = period_s, duty
        self._offset_s = rng.uniform(0.0, period_s)

    def sample(self, at_s: float) -> bool:
        return (at_s + self._offset_s) % self._period_s < self._duty * self._period_s


class State:
    """Stays in one of `names` for about `dwell_s`, then goes to another."""

    def __init__(self, rng: random.Random, *, names: Sequence[str], dwell_s: float) -> None:
        if len(names) < 2:
            raise ValueError("a state needs two names to go between")
        self._rng, self._names, self._dwell_s = rng, tuple(names), dwell_s
        self._now = rng.choice(self._names)
        self._until_s = rng.expovariate(1 / dwell_s)

    def sample(self, at_s: float) -> str:
        while at_s >= self._until_s:
            self._now = self._rng.choice([name for name in self._names if name != self._now])
            self._until_s += self._rng.expovariate(1 / self._dwell_s)
        return self._now


class Gps:
    """A vessel under way: position in degrees, its course wandering; stays within `range_m` of its berth."""

    _METRES_PER_DEGREE: Final = 111_320.0

    def __init__(
        self, rng: random.Random, *, lat: float, lon: float, speed_m_s: float, range_m: float = 5_000.0
    ) -> None:
        if not -80 <= lat <= 80:
            raise ValueError(f"latitude {lat} is too near a pole for a plane")
        self._rng, self._lat, self._lon = rng, lat, lon
        self._speed_m_s, self._range_m = speed_m_s, range_m
        self._north_m = self._east_m = self._at_s = 0.0
        self._course = rng.uniform(0.0, 2 * math.pi)

    def sample(self, at_s: float) -> dict[str, float]:
        elapsed_s, self._at_s = max(at_s - self._at_s, 0.0), at_s
        self._course += self._rng.gauss(0.0, 0.1 * math.sqrt(elapsed_s))
        way_m = self._speed_m_s * elapsed_s
        self._north_m = _reflect(self._north_m + way_m * math.cos(self._course), -self._range_m, self._range_m)
        self._east_m = _reflect(self._east_m + way_m * math.sin(self._course), -self._range_m, self._range_m)
        degrees_east = self._METRES_PER_DEGREE * math.cos(math.radians(self._lat))
        return {
            "lat": round(self._lat + self._north_m / self._METRES_PER_DEGREE, 6),
            "lon": round(self._lon + self._east_m / degrees_east, 6),
        }


class Attribute(msgspec.Struct, frozen=True):
    """A sensor as a blueprint declares it. `kind`: number, boolean, string or geoposition; `unit`: of a number."""

    name: str
    kind: str
    unit: str = ""


class Profile(msgspec.Struct, frozen=True):
    """A kind of device: what it measures, and how to make the sensors of one."""

    name: str
    attributes: tuple[Attribute, ...]
    sensors: Callable[[random.Random], dict[str, Signal]]


def sample(sensors: Mapping[str, Signal], at_s: float) -> dict[str, Value]:
    """One value of each sensor."""
    return {name: signal.sample(at_s) for name, signal in sensors.items()}


def _reflect(value: float, low: float, high: float) -> float:
    """`value`, mirrored at the ends as often as it takes to lie between them."""
    width = high - low
    offset = (value - low) % (2 * width)
    return low + (offset if offset <= width else 2 * width - offset)


def _pump(rng: random.Random) -> dict[str, Signal]:
    return {
        "temperature": RandomWalk(rng, low=55.0, high=85.0, step=0.3),
        "pressure": Sine(rng, mean=4.2, amplitude=0.3, period_s=90.0, noise=0.02),
        "vibration": RandomWalk(rng, low=0.8, high=7.1, step=0.05, digits=2),
        "running": Square(rng, period_s=600.0, duty=0.9),
    }


def _tank(rng: random.Random) -> dict[str, Signal]:
    return {
        "level": Sine(rng, mean=55.0, amplitude=30.0, period_s=1_800.0, noise=0.1, digits=1),
        "inflow": RandomWalk(rng, low=0.0, high=40.0, step=0.5),
        "valve": State(rng, names=("open", "closed", "throttled"), dwell_s=120.0),
    }


def _meter(rng: random.Random) -> dict[str, Signal]:
    return {
        "energy": Counter(per_s=rng.uniform(0.5, 4.0), start=rng.randrange(100_000)),
        "voltage": Sine(rng, mean=230.0, amplitude=4.0, period_s=3_600.0, noise=0.4, digits=1),
    }


def _boat(rng: random.Random) -> dict[str, Signal]:
    return {
        "position": Gps(rng, lat=53.54, lon=9.97, speed_m_s=rng.uniform(2.0, 7.0)),
        "fuel": RandomWalk(rng, low=5.0, high=100.0, step=0.02),
    }


PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            "pump",
            (
                Attribute("temperature", "number", "°C"),
                Attribute("pressure", "number", "bar"),
                Attribute("vibration", "number", "mm/s"),
                Attribute("running", "boolean"),
            ),
            _pump,
        ),
        Profile(
            "tank",
            (
                Attribute("level", "number", "%"),
                Attribute("inflow", "number", "m³/h"),
                Attribute("valve", "string"),
            ),
            _tank,
        ),
        Profile("meter", (Attribute("energy", "number", "Wh"), Attribute("voltage", "number", "V")), _meter),
        Profile("boat", (Attribute("position", "geoposition"), Attribute("fuel", "number", "%")), _boat),
    )
}
"""By name: what `fleet --profile` and the demo's blueprints take."""
