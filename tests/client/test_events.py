"""Events for a controller: cursors, gaps, durable readers, and slow ones."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from stack import open_stack, until

from sidecar.client import CallError, Code, Cursor, Event, Gap
from sidecar.client.events import ACK_EVERY
from sidecar.protocol.limits import READERS

OTHER_SERIES = b"o" * 16


def test_a_cursor_is_text_and_back() -> None:
    cursor = Cursor(bytes(range(16)), 7)
    assert Cursor.parse(str(cursor)) == cursor
    assert Cursor.parse("7") == Cursor.parse("-:7") == Cursor(None, 7)
    with pytest.raises(ValueError):
        Cursor.parse("x:7")


async def test_a_kept_cursor_goes_on_where_it_was(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        for number in range(10):
            stack.sidecar.means.emit("x", number)
        async with run.events() as events:
            for _ in range(5):
                await events.receive()
        async with run.events(Cursor.parse(str(events.cursor))) as events:
            assert (await events.receive()).cursor.seq == 6


async def test_a_cursor_of_another_series_gets_a_gap_and_then_everything(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.events(Cursor(OTHER_SERIES, 40)) as events:
            gap = await events.receive()
            assert isinstance(gap, Gap)
            assert (gap.first, gap.last, gap.why) == (41, None, "new_series")
            event = await events.receive()
            assert isinstance(event, Event)
            assert (event.seq, event.name) == (1, "sidecar.started")


async def test_a_cursor_from_the_future_is_an_error(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.events(Cursor(None, 1000)) as events:
            with anyio.fail_after(5), pytest.raises(CallError) as caught:
                await events.receive()
        assert caught.value.code is Code.INVALID


async def test_a_durable_reader_acks_what_it_has_processed_and_comes_back(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        for number in range(ACK_EVERY):
            stack.sidecar.means.emit("x", number)
        async with run.events(reader="platform") as events:
            for _ in range(10):
                await events.receive()
            assert stack.sidecar.journal.acked == 0
        await until(lambda: stack.sidecar.journal.acked == 10)
        async with run.events(events.cursor, reader="platform") as events:
            for _ in range(ACK_EVERY + 1 - 10):
                await events.receive()
            with anyio.move_on_after(0.3):  # quiet: what was processed is acked soon
                await events.receive()
            assert stack.sidecar.journal.acked == ACK_EVERY + 1


async def test_durable_readers_that_are_gone_are_forgotten_and_leave_their_places(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        for number in range(READERS):
            async with run.events(reader=f"gone-{number}") as events:
                await events.attached.wait()
            await until(lambda: stack.sidecar.exchange.readers == 0)
        with pytest.raises(CallError, match="durable readers"):
            async with run.events(reader="platform") as events:
                await events.receive()
        for number in range(READERS):
            await run.forget_reader(f"gone-{number}")
        assert stack.sidecar.journal.acked is None
        async with run.events(reader="platform") as events:
            assert await events.receive()
        with pytest.raises(CallError, match="reader"):
            await run.forget_reader("No Name")


async def test_an_ack_that_was_lost_with_the_attachment_is_said_again(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.events(reader="platform") as events:
            await events.receive()
            stack.sidecar.means.emit("x", 1)
            await events.receive()
            with anyio.move_on_after(0.3):
                await events.receive()
            assert stack.sidecar.journal.acked == 2
            durable = stack.sidecar.journal._protocol._durable["platform"]
            durable.acked = 0  # as after a kill, before the ack was noted
            events.begin()
            await until(lambda: stack.sidecar.journal.acked == 2)


async def test_what_was_yielded_of_another_series_is_not_acked_in_this_one(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        for number in range(10):
            stack.sidecar.means.emit("x", number)
        async with run.events(Cursor(OTHER_SERIES, 8), reader="platform") as events:
            await events.attached.wait()
            await anyio.sleep(0.05)  # time to say something wrong
            assert stack.sidecar.journal.acked == 0
            assert isinstance(await events.receive(), Gap)
            await events.receive()
            with anyio.move_on_after(0.3):
                while True:
                    await events.receive()
            assert stack.sidecar.journal.acked == stack.sidecar.journal.last


async def test_a_reader_that_takes_nothing_holds_up_nobody(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.events() as slow, run.events() as fast:
            for number in range(1200):  # four times what a window holds
                stack.sidecar.means.emit("x", bytes(16_000))
                if number % 50 == 0:
                    await anyio.lowlevel.checkpoint()
            seen = 0
            while seen < stack.sidecar.journal.last:
                seen = (await fast.receive()).cursor.seq
                assert await run.ping() < 2.0 if seen % 100 == 0 else True
            waiting = slow._inbound
            assert waiting is not None and waiting.seen_bytes <= 5 << 20
            for seq in range(1, seen + 1):  # far more than memory holds
                item = await slow.receive()
                assert isinstance(item, Event) and item.seq == seq


async def test_closing_ends_whoever_waits(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        events = run.events()
        names: list[str] = []

        async def follow() -> None:
            async for event in events:
                names.append(getattr(event, "name", ""))

        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await until(lambda: names == ["sidecar.started"])
            await events.aclose()
            await events.aclose()
        await until(lambda: stack.sidecar.exchange.readers == 0)
