"""Which ended programs go first, and what is remembered of them."""

from __future__ import annotations

import anyio
from programtable import Bench

from sidecar.processes.kept import REMEMBERED, Forgotten, victims
from sidecar.protocol.spool import OnFull


async def test_brief_ones_go_first_and_of_each_the_oldest(bench: Bench) -> None:
    programs = [await bench.run("true", is_brief=brief) for brief in (False, True, False, True)]
    assert victims(programs, ()) == [programs[1], programs[3], programs[0], programs[2]]


async def test_one_with_survivors_goes_last_and_one_that_is_read_does_not_go(bench: Bench) -> None:
    survived = await bench.run("true", is_brief=True)
    read = await bench.run("true", is_brief=True)
    held = await bench.run("sleep 60 & true", is_brief=True)
    last = await bench.run("true")
    source = read.outputs[1].source(0, paces=False)
    assert victims([survived, read, held, last], {survived.id}) == [last, survived, held]
    await source.aclose()
    assert victims([survived, read], {survived.id}) == [read, survived]


async def test_one_that_ended_and_waits_for_a_reader_may_go(bench: Bench) -> None:
    """It holds what it printed, and the rest is in its pipe: nobody may ever come for it."""
    process = await bench.start("head -c 17000000 /dev/zero", on_full=OnFull.HOLD)
    await process.wait()
    assert not process.is_settled
    assert victims([process], ()) == [process]
    source = process.outputs[1].source(0, paces=True)
    assert victims([process], ()) == []
    await source.aclose()
    bench.table.spools.make_room(1 << 40)  # type: ignore[misc]
    with anyio.fail_after(5):
        await process.settled()
    assert bench.table.all() == []


async def test_one_that_runs_stays(bench: Bench) -> None:
    running = await bench.start("exec sleep 60")
    assert victims([running], ()) == []
    await running.kill(0)


def test_ids_are_remembered_up_to_a_bound() -> None:
    forgotten = Forgotten()
    ids = [number.to_bytes(16, "big") for number in range(REMEMBERED + 1)]
    for id in ids:
        forgotten.add(id)
    assert ids[0] not in forgotten
    assert ids[1] in forgotten
    assert ids[-1] in forgotten
