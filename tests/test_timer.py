"""One timer on our clock: it fires once, when its deadline has passed there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sidecar import timer as timer_module
from sidecar.clock import ManualClock, SystemClock
from sidecar.timer import Timer


class Alarm:
    """A timer on a clock that is moved by hand, with looks at it every 2 ms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timer_module, "LONGEST", 0.002)
        self.clock = ManualClock(now=100.0)
        self.fired: list[float] = []
        self.then: Callable[[], None] = lambda: None
        self.timer = Timer(self.clock, self.fire)

    def fire(self) -> None:
        self.fired.append(self.clock.now())
        self.then()

    async def look(self) -> list[float]:
        """What fired after the timer has looked at the clock a few times."""
        await asyncio.sleep(0.02)
        return self.fired


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Alarm:
    return Alarm(monkeypatch)


async def test_it_fires_once_when_the_deadline_has_passed_on_our_clock(alarm: Alarm) -> None:
    alarm.timer.set(110.0)
    assert await alarm.look() == []
    alarm.clock.advance(9.9)
    assert await alarm.look() == []
    alarm.clock.advance(0.1)
    assert await alarm.look() == [110.0]
    alarm.clock.advance(100.0)
    assert await alarm.look() == [110.0]


async def test_a_deadline_that_has_passed_already_fires_soon_but_not_at_once(alarm: Alarm) -> None:
    alarm.timer.set(50.0)
    assert alarm.fired == []
    assert await alarm.look() == [100.0]


async def test_a_deadline_that_passed_while_the_machine_slept_is_seen_soon(alarm: Alarm) -> None:
    alarm.timer.set(3700.0)
    alarm.clock.advance(86_400.0)  # as CLOCK_BOOTTIME does; the event loop's own clock stood still
    assert await alarm.look() == [86_500.0]


async def test_a_later_deadline_replaces_an_earlier_one(alarm: Alarm) -> None:
    alarm.timer.set(110.0)
    alarm.timer.set(120.0)
    alarm.clock.advance(15.0)
    assert await alarm.look() == []
    alarm.clock.advance(5.0)
    assert await alarm.look() == [120.0]


async def test_an_earlier_deadline_replaces_a_later_one(alarm: Alarm) -> None:
    alarm.timer.set(120.0)
    alarm.timer.set(110.0)
    alarm.clock.advance(10.0)
    assert await alarm.look() == [110.0]


@pytest.mark.parametrize("stop", ["cancel", "none"])
async def test_a_timer_that_was_stopped_does_not_fire(alarm: Alarm, stop: str) -> None:
    alarm.timer.set(100.0)
    if stop == "cancel":
        alarm.timer.cancel()
    else:
        alarm.timer.set(None)
    assert await alarm.look() == []
    alarm.timer.set(100.0)
    assert await alarm.look() == [100.0]


async def test_it_may_be_set_again_while_it_fires(alarm: Alarm) -> None:
    alarm.then = lambda: alarm.timer.set(None if len(alarm.fired) == 3 else 100.0)
    alarm.timer.set(100.0)
    assert await alarm.look() == [100.0, 100.0, 100.0]


async def test_the_clock_of_the_machine_is_met_exactly_enough() -> None:
    clock = SystemClock()
    fired = asyncio.Event()
    timer = Timer(clock, fired.set)
    deadline = clock.now() + 0.02
    timer.set(deadline)
    await asyncio.wait_for(fired.wait(), 5)
    assert clock.now() >= deadline


async def test_a_distant_deadline_is_looked_at_once_a_minute_and_no_deadline_never() -> None:
    clock = ManualClock(now=100.0)
    timer = Timer(clock, lambda: None)
    loop = asyncio.get_running_loop()
    timer.set(float("inf"))
    handle = timer._handle
    assert handle is not None
    assert 59.0 < handle.when() - loop.time() <= 60.0
    timer.set(None)
    assert handle.cancelled()
    assert timer._handle is None


async def test_sooner_brings_a_deadline_forward_and_never_puts_it_off(alarm: Alarm) -> None:
    alarm.timer.sooner(None)
    alarm.timer.sooner(110.0)
    alarm.timer.sooner(120.0)
    alarm.timer.sooner(105.0)
    alarm.clock.advance(5.0)
    assert await alarm.look() == [105.0]
    alarm.clock.advance(100.0)
    assert await alarm.look() == [105.0]
