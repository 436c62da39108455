"""Results: never lost, never invented, and told apart from what never ran.

Each test stands for what users reported of other systems that run commands for somebody else
(owner/repo#number); its name is what ours promises. Hub, sidecar, client and programs are real.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from functools import partial
from pathlib import Path

import anyio
import pytest
from jumping import JumpingClock, in_jumping_time
from rawpeer import raw_peer
from stack import PATIENCE, RUN, open_stack, until

from sidecar import serving
from sidecar.client import CallError, Code, Controller, Cursor, Event, EventStream, Started
from sidecar.client.exec import collect
from sidecar.durable.journal import open_journal
from sidecar.identity import new_id
from sidecar.protocol import envelope as wire

SIDECAR, ME = f"sandbox:{RUN}", "control:me"
MB, MIB = 1_000_000, 1 << 20
UNTIL_GO = "until [ -e go ]; do sleep 0.01; done"


async def until_event(events: EventStream, name: str) -> Event:
    """The next event of this name."""
    while True:
        event = await events.receive()
        if isinstance(event, Event) and event.name == name:
            return event


# An exit is told when it was seen, and then always ------------------------------------------


@pytest.mark.parametrize("who", [[SIDECAR], [ME], [SIDECAR, ME]], ids="+".join)
async def test_a_program_that_runs_has_no_exit_status_whatever_connection_is_lost(
    who: list[str], tmp_path: Path
) -> None:
    """cloudflare/sandbox-sdk#873: "complete, exit 0" of processes that were still running."""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        remote = await run.start(f"{UNTIL_GO}; exit 7")
        async with run.open("exec.run", {"shell": f"{UNTIL_GO}; exit 8"}) as call:
            await until(lambda: call.accepted)
            await stack.lose(*who)
            seen = [(one.state, one.status, one.signal) for one in await run.processes()]
            assert seen == [("running", None, None)] * 2
            assert not call.has_ended
            (stack.workspace / "go").touch()
            assert (await call.wait())["status"] == 8
        assert (await remote.wait()).status == 7


async def test_an_exit_while_nothing_is_connected_is_told_afterwards(tmp_path: Path) -> None:
    """e2b-dev/E2B PR #1878: the process had exited 0 and its caller never learned;
    ColeMurray/background-agents PR #263: an event lost with its connection left a session
    "running" for 90 minutes."""
    async with open_stack(tmp_path, sidecars=0) as stack:
        relay = await stack.relay()
        await stack.start_sidecar(hub=relay.url)
        run = await stack.attach()
        async with run.events() as events, run.open("exec.run", {"shell": UNTIL_GO}) as call:
            started = await until_event(events, "exec.started")
            stack.hub.forget(SIDECAR)
            await relay.go_away()
            (stack.workspace / "go").touch()
            await until(lambda: stack.sidecar.journal.last == started.seq + 1)
            assert not call.has_ended
            relay.is_up = True
            assert (await call.wait())["status"] == 0
            assert (await until_event(events, "exec.ended")).seq == started.seq + 1


async def test_output_that_nobody_reads_is_kept(tmp_path: Path) -> None:
    """e2b-dev/infra PR #2639: output without a reader was thrown away, on purpose."""
    async with open_stack(tmp_path) as stack:
        async with Controller.connect(stack.url("first"), controller="first") as first:
            run = await first.attach(RUN)
            remote = await run.start("seq 1 20000; touch done")
        await until((stack.workspace / "done").exists)
        found = await (await stack.attach()).find(remote.id)
        async with found.attach(stdout=0) as program:
            output = b"".join([chunk async for chunk in program.stdout])
        assert output.split() == [b"%d" % number for number in range(1, 20_001)]


# A result is had again ----------------------------------------------------------------------


async def test_results_that_were_cut_off_are_fetched_whole(tmp_path: Path) -> None:
    """opensandbox-group/OpenSandbox#1277: 17 of 453 commands died at their end, with half a
    body. Each result here is sent to a connection that breaks within it."""
    async with open_stack(tmp_path) as stack:
        relay = await stack.relay()
        token = stack.url("me").partition("?")[2]
        async with Controller.connect(f"{relay.url}?{token}", controller="me") as controller:
            run = await controller.attach(RUN, timeout=PATIENCE)
            found: dict[int, bytes] = {}

            async def one(number: int) -> None:
                shell = f"{UNTIL_GO}; yes {number} | head -c 60000"
                found[number] = (await run.exec(shell)).stdout

            async with anyio.create_task_group() as group:
                for number in range(17):
                    group.start_soon(one, number)
                await until(lambda: stack.sidecar.dispatcher.open_calls == 17)
                relay.cut_after = 100_000  # of each connection, with 17 results of 60 KB to come
                (stack.workspace / "go").touch()
                await until(lambda: relay.cuts > 2)
                relay.cut_after = None
        assert found == {n: (b"%d\n" % n * 60_000)[:60_000] for n in range(17)}


async def test_a_result_that_was_delivered_to_nobody_is_asked_for_by_its_id(
    tmp_path: Path,
) -> None:
    """OpenHands/software-agent-sdk#1532: the callback never came, in about 2 % of the runs. The
    hub said that it has these results, and whoever should have got them was gone."""
    async with open_stack(tmp_path) as stack:
        async with raw_peer(stack.hub) as peer:
            await peer.attach()
            ids = [
                await peer.call("exec.run", {"argv": ["echo", str(n)], "live": False})
                for n in range(20)
            ]
            await until(lambda: stack.sidecar.dispatcher.counts["ended"] == 20)
        run = await stack.attach()
        for number, id in enumerate(ids):
            async with run.resume(id) as call:
                assert (await collect(call)).stdout == b"%d\n" % number


@pytest.mark.parametrize("size", [0, 18_000, 18_433, 65_537, 3_000_000])
async def test_a_write_is_answered_with_what_the_disk_holds(size: int, tmp_path: Path) -> None:
    """opensandbox-group/OpenSandbox#1016: uploads above 18 KB said ok, and no file appeared."""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        content = os.urandom(size)
        written = await run.files.write("uploaded", content)
        on_disk = (stack.workspace / "uploaded").read_bytes()
        assert (written.size, written.sha256) == (len(on_disk), hashlib.sha256(on_disk).digest())
        assert on_disk == content


# Delivered is counted against produced ------------------------------------------------------

RECORDS = 29_297


async def test_every_record_arrives_through_reconnects_before_the_exit_is_told(
    tmp_path: Path,
) -> None:
    """langchain-ai/langsmith-sdk PR #3021, #3022: 3 516 of 29 297 records vanished after a
    reconnect, and the exit status still was 0."""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        delivered = bytearray()
        cuts = 0
        async with run.process(f"seq 1 {RECORDS}; exit 0") as program:
            async for _, chunk in program.output():
                delivered += chunk
                if len(delivered) > cuts * 50_000 and cuts < 3:
                    cuts += 1
                    await stack.lose(SIDECAR, ME)
            completed = await program.wait()
        assert (completed.status, completed.dropped) == (0, {})
        assert delivered.split() == [b"%d" % number for number in range(1, RECORDS + 1)]
        assert cuts == 3


async def test_events_that_cannot_be_had_are_counted_in_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """langchain-ai/langsmith-sdk PR #3021: what is missing has to be an event, too."""
    small = partial(open_journal, max_events=100, segment_bytes=20_000)
    monkeypatch.setattr(serving, "open_journal", small)
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        last = [stack.sidecar.emit("record", bytes(1000)) for _ in range(300)][-1]
        await until(lambda: stack.sidecar.journal.first > last - 120)
        async with run.events(Cursor(None, 0)) as events:
            gap = await events.receive()
            assert not isinstance(gap, Event)
            delivered = [(await events.receive()).cursor.seq for _ in range(gap.last + 1, last + 1)]
        assert (gap.first, gap.why) == (1, "evicted")
        assert delivered == list(range(gap.last + 1, last + 1))


@pytest.mark.slow
async def test_the_end_of_every_program_is_an_event_that_arrives_once(tmp_path: Path) -> None:
    """OpenHands/software-agent-sdk#1532, #3983: the callback at the end did not come."""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        ended: Counter[bytes] = Counter()

        async def follow() -> None:
            async with run.events() as events:
                async for event in events:
                    if isinstance(event, Event) and event.name == "exec.ended":
                        assert event.call is not None
                        ended[event.call] += 1
                        if len(ended) == 30:
                            return

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            ids = []
            for number in range(30):
                ids.append((await run.start(["true"])).id)
                if number % 10 == 5:
                    await stack.lose(SIDECAR, ME)
        assert ended == Counter(ids)


# From where it was, not from the start ------------------------------------------------------


@pytest.mark.slow
async def test_a_reconnect_replays_nothing_that_was_received(tmp_path: Path) -> None:
    """OpenHands/OpenHands#17619: the whole session again after each reconnect, for the place to
    go on from was a stale timestamp; anomalyco/opencode#25657: no place at all."""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        last = [stack.sidecar.emit("step", step) for step in range(500)][-1]
        async with run.events() as events:
            numbers = [(await events.receive()).cursor.seq for _ in range(last)]
            assert numbers == list(range(1, last + 1))
            came: list[int] = []
            take = events.receive_events

            def count(items: list[wire.Event | wire.Gap], size: int) -> None:
                came.extend(item.seq for item in items if isinstance(item, wire.Event))
                take(items, size)

            events.receive_events = count  # type: ignore[method-assign]
            for step in range(3):
                await stack.lose(SIDECAR, ME)
                received, last = last, stack.sidecar.emit("step", 500 + step)
                assert (await events.receive()).cursor.seq == last
                await until(lambda: stack.sidecar.exchange.readers == 1)
                await run.ping()
                assert min(came) > received, "it was received before the connection was lost"
                came.clear()


async def test_a_cursor_is_a_number_and_the_next_event_is_the_one_behind_it(
    tmp_path: Path,
) -> None:
    """OpenHands/OpenHands#17619; anomalyco/opencode#25657."""
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        last = [stack.sidecar.emit("step", step) for step in range(300)][-1]
        for after in (0, 1, 150, last - 1):
            answer = await peer.attach(after=after, series=stack.sidecar.journal.series)
            assert answer.last == last
            assert (await peer.expect(wire.Event)).seq == after + 1
            if after + 1 < last:
                await peer.expect(wire.Event, seq=last)  # nothing of it comes to the next one
            peer.forget()


@in_jumping_time
async def test_a_long_stream_goes_through_a_proxy_that_cuts_every_connection(
    tmp_path: Path,
) -> None:
    """vercel-labs/agent-eval PR #115: 28 runs cut after five minutes by a proxy; harbor PR #2659
    and modal-labs/libmodal#245: streams cut by a budget for reading; kubernetes-sigs/
    agent-sandbox#369: a hard limit of 180 s in the router."""
    clock = JumpingClock()
    async with open_stack(tmp_path, clock=clock) as stack:
        relay = await stack.relay()
        token = stack.url("me").partition("?")[2]
        relay.cut_after = 1_500_000
        async with Controller.connect(
            f"{relay.url}?{token}", controller="me", clock=clock
        ) as controller:
            run = await controller.attach(RUN)
            produced = os.urandom(6 * MB)
            (stack.workspace / "data").write_bytes(produced)
            assert (await run.exec(["cat", "data"])).stdout == produced
            assert await run.files.read("data") == produced
        assert relay.cuts >= 6


# What became of it --------------------------------------------------------------------------


async def test_ran_and_output_lost_is_told_apart_from_never_ran(tmp_path: Path) -> None:
    """cloudflare/cloudflare-os#444: the caller cannot tell one from the other."""
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        remote = await run.start("head -c 40000000 /dev/zero; echo ran >> count")
        assert (await remote.wait()).status == 0  # how it ended is known for good,
        middle = await remote.read(offset=8 * MB)  # and what of its output is not kept
        assert (middle.size, middle.dropped) == (40 * MB, 40 * MB - 16 * MIB)

        async with run.resume(new_id(stack.sidecar.clock)) as unknown:
            with pytest.raises(CallError) as never:
                await unknown.wait()
        assert (never.value.code, never.value.started) == (Code.UNKNOWN_CALL, Started.NO)
        assert (stack.workspace / "count").read_text() == "ran\n"
