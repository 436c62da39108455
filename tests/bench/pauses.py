"""What a reader of a thousand events a second notices: the longest silence that each fault costs.

The hub is in this process, so that faults strike when we say; sidecar and journal are a process
of their own. Every event says when it was appended, on the clock that all processes share
(CLOCK_MONOTONIC, clock_gettime(2)). The numbers of the events are checked on the way: a pause that
loses one is no pause.

A link that held for less than ten seconds is not recovered at once but after a moment of chance,
so that two that fight for one session do not do so at full speed. So each fault strikes a link
that has held longer than that.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from subprocess import Popen

import anyio

from sidecar.client import CallableProvider, CallError, Controller, Event, Run, Token
from sidecar.hub import Hub, HubSettings, serve
from sidecar.protocol.names import controller_grant
from tests.bench import emitter
from tests.bench.measure import Scale, ms, percentile
from tests.bench.report import Row
from tests.bench.stage import PATIENCE, process

RUN = "pauses"
SIDECAR = f"sandbox:{RUN}"
EMITTER = ("-m", "tests.bench.emitter")
STEADY = 0.3  # seconds of events without a silence after which a fault is over
QUIET = 0.05  # seconds; a longer silence is one

Fault = Callable[[], Awaitable[None]]


class Reader:
    """Notes when each event came, and how long it had been under way."""

    def __init__(self) -> None:
        self.times: list[float] = [time.monotonic()]
        self.latencies: list[float] = []
        self._last = 0

    async def follow(self, run: Run) -> None:
        async with run.events() as events:
            async for event in events:
                assert isinstance(event, Event), event
                assert event.seq == self._last + 1, f"{self._last}, then {event.seq}"
                self._last = event.seq
                self.times.append(time.monotonic())
                if event.name == emitter.TICK:
                    self.latencies.append(self.times[-1] - event.data)

    async def steady(self, since: float) -> None:
        """Until events have come without a silence for a while, all of it after `since`."""
        with anyio.fail_after(PATIENCE):
            while (  # noqa: ASYNC110 - every event would ring
                time.monotonic() < since + 2 * STEADY or self.silence(self.times[-1] - STEADY)
            ):
                await anyio.sleep(0.05)

    def silence(self, since: float) -> float:
        """The longest one that began after `since`, or 0.0 if none was longer than `QUIET`."""
        found = self.longest(since)
        return found if found > QUIET else 0.0

    def longest(self, since: float) -> float:
        times = [*(one for one in self.times if one >= since), time.monotonic()]
        return max(later - sooner for sooner, later in zip(times, times[1:], strict=False))


class Stage:
    """A hub, a sidecar that emits, and a reader. Made by `_stage`."""

    def __init__(self, hub: Hub, folder: Path, handover: str) -> None:
        self.hub = hub
        self.reader = Reader()
        self._children = ExitStack()
        token = folder / "first-run-token"
        token.write_text(hub.mint_run_token(RUN))
        token.chmod(0o600)
        (folder / "workspace").mkdir()
        self._environment = {
            "SIDECAR_RUN": RUN,
            "SIDECAR_ENDPOINT": hub.address.endpoint,
            "SIDECAR_RUN_TOKEN_FILE": str(token),
            "SIDECAR_WORKSPACE": str(folder / "workspace"),
            "SIDECAR_STATE": str(folder / "state"),
            "SIDECAR_LOG_LEVEL": "error",
            "SIDECAR_HANDOVER": handover,
        }

    def start(self) -> Popen[str]:
        child = process(*EMITTER, environment=self._environment, quiet=True)
        self._child = self._children.enter_context(child)
        return self._child

    def end(self) -> None:
        self._child.kill()  # it would drain, and never be done with what it still emits
        self._children.close()

    async def emit(self, run: Run) -> None:
        """A thousand events a second; again, if the sidecar that did it is no more."""
        while True:
            try:
                await run.call(emitter.TICK)
            except CallError:
                await anyio.sleep(0.01)

    # faults -----------------------------------------------------------------------------------

    async def nothing(self) -> None: ...

    async def drop(self) -> None:
        await self.hub.drop(SIDECAR)

    async def forget(self) -> None:
        self.hub.forget(SIDECAR)
        await self.hub.drop(SIDECAR)

    async def kill(self) -> None:
        self._child.kill()
        self.start()

    async def pause(self, fault: Fault) -> float:
        began = time.monotonic()
        await fault()
        await self.reader.steady(began)
        return self.reader.longest(began - QUIET)

    async def heal(self, away: float) -> float:
        """Seconds from the end of the hub's absence to the first event."""
        await self.hub.leave(away)
        await anyio.sleep(away)
        back = time.monotonic()
        await self.reader.steady(back)
        return next(one for one in self.reader.times if one > back) - back


@asynccontextmanager
async def _stage(*, token_life: float = 300.0, handover: str = "never") -> AsyncIterator[Stage]:
    hub = Hub(HubSettings(platform=True, token_life=token_life))

    async def token() -> Token:
        value = hub.mint(controller_grant("reader", [RUN]))
        return Token(hub.address.client_url, value)

    async with AsyncExitStack() as exits:
        folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        await exits.enter_async_context(serve(hub))
        here = Stage(hub, Path(folder), handover)
        exits.callback(here.end)
        here.start()
        provider = CallableProvider(token)
        controller = await exits.enter_async_context(
            Controller.connect(provider, controller="reader")
        )
        run = await controller.attach(RUN, timeout=PATIENCE)
        group = await exits.enter_async_context(anyio.create_task_group())
        group.start_soon(here.reader.follow, run)
        group.start_soon(here.emit, run)
        await here.reader.steady(time.monotonic())
        yield here
        group.cancel_scope.cancel()


async def pauses(scale: Scale) -> list[Row]:
    """The longest silence in a stream of events: refresh, handover, recovery, reconnect, kill."""
    found: dict[str, list[float]] = {}
    latencies: list[float] = []
    async with _stage() as here:
        for _ in range(scale.rounds):
            quiet = len(here.reader.latencies)
            await anyio.sleep(scale.settle)
            latencies += here.reader.latencies[quiet:]
            for name, fault in (
                ("nothing", here.nothing),
                ("recovery", here.drop),
                ("reconnect", here.forget),
                ("kill -9 of core, and its restart", here.kill),
            ):
                found.setdefault(name, []).append(await here.pause(fault))
                await anyio.sleep(scale.settle)
    for name, handover in (("refresh of the token", "never"), ("handover", "always")):
        found[name] = await _renewals(scale, handover)
    rows = [_row("pauses", f"longest silence: {name}", times) for name, times in found.items()]
    rows.append(
        Row(
            "pauses",
            "an event at 1 kHz, from append to reader, p99",
            percentile(latencies, 0.99) * 1e3,
            unit="ms",
            sides={"p50": ms(latencies), "events": str(len(latencies))},
        )
    )
    return rows


async def _renewals(scale: Scale, handover: str) -> list[float]:
    """The longest silence in each life of a token, which is renewed in the middle of it."""
    async with _stage(token_life=scale.token_life, handover=handover) as here:
        found = []
        for _ in range(scale.rounds):
            began = time.monotonic()
            await anyio.sleep(scale.token_life)
            found.append(here.reader.longest(began))
    return found


async def heal(scale: Scale) -> list[Row]:
    """From the network being back to the first event, after absences of some seconds."""
    rows = []
    async with _stage() as here:
        for away in scale.away:
            times = []
            for _ in range(scale.rounds):
                await anyio.sleep(scale.settle)
                times.append(await here.heal(away))
            rows.append(_row("heal", f"first event after {away:g} s without the hub", times))
    return rows


def _row(bench: str, what: str, times: list[float]) -> Row:
    return Row(
        bench,
        what,
        statistics.median(times) * 1e3,
        unit="ms",
        sides={"longest": f"{max(times) * 1e3:.0f} ms"},
        rounds=len(times),
    )
