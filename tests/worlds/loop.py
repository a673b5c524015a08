"""An event loop in virtual time, and the operating system's processes in it.

Nothing waits: time jumps to whatever is due next. What a thread would do is done in the loop, at a moment that the seed
chooses. Everything that a process runs carries the process in its context, so that a process can be killed between any
two steps (nothing of it runs any more, not even a `finally`) or be stopped for a while.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

T = TypeVar("T")

SPIN_MAX: Final = 200_000
"""Steps without time passing: a loop that waits for nothing."""

CLOSES_MAX: Final = 8
"""Times that a coroutine may go on when it is closed: each `finally` that awaits does."""

_TIE: Final = (1 << 32) - 1


class SpinError(Exception):
    """Steps follow each other for ever, and no time passes."""


class Process:
    """What one `kill` ends. `delay_s` says how long a call in one of its threads takes."""

    def __init__(self, loop: SimulatedLoop, name: str, delay_s: Callable[[], float]) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        self.delay_s = delay_s
        self.steps_left: int | None = None
        """Until it is killed, where that is planned."""
        self.on_steps_out: Callable[[], None] = lambda: None
        self.calls: list[Callable[[], None]] = []
        """What its threads are doing."""
        self._loop = loop
        self._held: list[asyncio.Handle] = []
        self._context = contextvars.copy_context()
        self._context.run(PROCESS.set, self)

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts a task of this process."""
        return self._loop.create_task(work, context=self._context)

    def do(self, call: Callable[..., object], *args: object) -> None:
        """Has this process call it, as soon as it can."""
        self._loop.call_soon(call, *args, context=self._context)

    def kill(self) -> None:
        """Nothing of it runs from now on. Its memory stays until the world ends, so that nothing is finalized."""
        if self.alive:
            self.alive = False
            self._loop.bury(self)

    def stop(self) -> None:
        """As SIGSTOP does."""
        self.stopped = True

    def go_on(self) -> None:
        self.stopped = False
        held, self._held = self._held, []
        self._loop.take_back(held)

    def hold(self, handle: asyncio.Handle) -> None:
        self._held.append(handle)


PROCESS: Final[contextvars.ContextVar[Process | None]] = contextvars.ContextVar("process", default=None)


class SimulatedTask(asyncio.Task[Any]):
    """Hashed by number, so that sets of tasks are walked in the same order each time."""

    def __init__(self, coro: Any, *, loop: SimulatedLoop, name: str | None, context: Any, number: int) -> None:
        self.number = number
        self.process: Process | None = (context or contextvars.copy_context()).get(PROCESS)
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Run by `run_until`. Deterministic for a seed, as long as what runs in it is."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.steps = 0
        self.failures: list[dict[str, Any]] = []
        """What nobody caught."""
        self.random = random.Random(seed)
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, int, asyncio.TimerHandle]] = []
        self._number = 0
        self._tie = self.random.getrandbits(32) | 1
        self._busy_until: dict[Executor, float] = {}
        self._buried: list[object] = []
        self._outside = contextvars.Context()
        self._closed = False

    # What worlds do with it

    def run_until(self, done: Callable[[], bool], *, until_s: float) -> bool:
        """Runs until `done`, asked between steps, or until that time. True if it is done; False too if nothing is left
        to do. Raises SpinError."""
        ready, timers = self._ready, self._timers
        spins = 0
        asyncio._set_running_loop(self)
        try:
            while not done():
                if not ready:
                    while timers and timers[0][3]._cancelled:  # type: ignore[attr-defined]
                        heapq.heappop(timers)
                    if not timers or timers[0][0] > until_s:
                        self.now = max(self.now, until_s if timers else self.now)
                        return False
                    if timers[0][0] > self.now:
                        self.now = timers[0][0]
                        spins = 0
                    while timers and timers[0][0] <= self.now:
                        ready.append(heapq.heappop(timers)[3])
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle._cancelled:  # type: ignore[attr-defined]
                        self._step(handle)
                    spins += 1
                if spins > SPIN_MAX:
                    raise SpinError(f"{spins} steps at {self.now:.3f} s")
            return True
        finally:
            asyncio._set_running_loop(None)

    def _step(self, handle: asyncio.Handle) -> None:
        context = handle._context  # type: ignore[attr-defined]
        process = context.get(PROCESS)
        if process is not None:
            if not process.alive:
                self._buried.append(handle)
                return
            if process.stopped:
                process.hold(handle)
                return
            if process.steps_left is not None:
                if process.steps_left <= 0:
                    process.steps_left = None
                    process.on_steps_out()
                    if not process.alive:
                        self._buried.append(handle)
                        return
                else:
                    process.steps_left -= 1
        self.steps += 1
        try:
            context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001  # as asyncio's own loop does; worlds look at it
            self.call_exception_handler({"message": f"in {handle!r}", "exception": error})

    def outside(self, delay_s: float, call: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Calls it later, whoever lives then: for what no process does, such as the network."""
        return self.call_at(self.now + delay_s, call, *args, context=self._outside)

    def bury(self, process: Process) -> None:
        self._buried += [task for task in asyncio.all_tasks(self) if getattr(task, "process", None) is process]
        self._buried += process.calls

    def take_back(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    def dispose(self) -> None:
        """Ends what never came to an end, unheard: coroutines of killed processes may fail, or go on, as they are
        closed."""
        silenced, sys.unraisablehook = sys.unraisablehook, lambda _: None
        asyncio._set_running_loop(self)
        try:
            for task in asyncio.all_tasks(self):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro = task.get_coro()
                for _ in range(CLOSES_MAX):
                    try:
                        coro.close()
                        break
                    except BaseException:  # noqa: BLE001  # as said
                        continue
            self._ready.clear()
            self._timers.clear()
            self._buried.clear()
            gc.collect(0)  # all that is of this world is young
        finally:
            asyncio._set_running_loop(None)
            sys.unraisablehook = silenced
            self._closed = True

    # What asyncio does with it

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        # Of timers that are due at one moment, asyncio promises no order.
        heapq.heappush(self._timers, (when, self._number * self._tie & _TIE, self._number, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> SimulatedTask:
        self._number += 1
        return SimulatedTask(coro, loop=self, name=name, context=context, number=self._number)

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """The call is made at a later moment, after the earlier ones of the same executor; its result may come later
        still. A kill in between may leave a call that was never made, or was made and never told."""
        process = PROCESS.get()
        assert process is not None, "only processes have threads"
        future: asyncio.Future[T] = self.create_future()
        starts = self.now
        if executor is not None:
            starts = max(starts, self._busy_until.get(executor, 0.0))
        ends = starts + process.delay_s()
        if executor is not None:
            self._busy_until[executor] = ends

        def call() -> None:
            process.calls.remove(call)
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001  # as an executor does
                tell(future.set_exception, error)
            else:
                tell(future.set_result, result)

        def tell(how: Callable[[Any], None], what: Any) -> None:
            if self.random.random() < 0.2:
                self.call_later(process.delay_s() / 4, settle, how, what)
            else:
                settle(how, what)

        def settle(how: Callable[[Any], None], what: Any) -> None:
            if not future.done():
                how(what)

        process.calls.append(call)
        self.call_at(ends, call)
        return future

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are passed over when they are due."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._closed

    def is_closed(self) -> bool:
        return self._closed
