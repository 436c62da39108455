"""Who told a sidecar to end, and until when it may take its time."""

from __future__ import annotations

import anyio

from sidecar.clock import ManualClock
from sidecar.ending import Ending, Teller


def told(*tellers: Teller) -> Ending:
    ending = Ending(ManualClock())
    for teller in tellers:
        ending.tell(teller, timeout=10.0)
    return ending


async def test_a_signal_stops_the_process_and_not_the_run() -> None:
    assert not told(Teller.SIGNAL).ends_run
    assert told(Teller.DRAIN).ends_run
    assert told(Teller.RUN_END).ends_run


async def test_the_run_ends_if_anybody_said_so() -> None:
    assert told(Teller.SIGNAL, Teller.RUN_END).told_by is Teller.RUN_END
    assert told(Teller.RUN_END, Teller.SIGNAL).told_by is Teller.RUN_END
    assert told(Teller.DRAIN, Teller.RUN_END).told_by is Teller.DRAIN, "it had ended already"


async def test_the_nearest_deadline_counts() -> None:
    clock = ManualClock()
    ending = Ending(clock)
    ending.tell(Teller.DRAIN, timeout=60.0)
    clock.advance(5.0)
    assert ending.time_left == 55.0
    ending.tell(Teller.SIGNAL, timeout=20.0)
    assert ending.time_left == 20.0
    ending.tell(Teller.DRAIN, timeout=60.0)
    assert ending.time_left == 20.0
    clock.advance(30.0)
    assert ending.time_left == 0.0


async def test_who_is_told_while_it_ends_is_cut_sooner() -> None:
    ending = told(Teller.DRAIN)
    with anyio.fail_after(5), ending.scope:
        ending.tell(Teller.SIGNAL, timeout=0.0)
        await anyio.sleep_forever()
    assert ending.scope.cancelled_caught


async def test_nobody_waits_for_what_was_told() -> None:
    with anyio.fail_after(5):
        await told(Teller.SIGNAL).told()
