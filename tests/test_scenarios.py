"""Walks over the whole wire, with real sockets, programs and processes.

"Equal" means: what was produced and what arrived are the same bytes, events and results, once
each. The same walks with made-up times are in tests/protocol/test_walks.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from jumping import JumpingClock, in_jumping_time
from rawpeer import raw_peer
from rest import send_to_sidecar
from stack import PATIENCE, RUN, Stack, open_stack, until

from sidecar.client import CallError, Code, Run, Started
from sidecar.client.exec import collect
from sidecar.hub import Hub, HubSettings
from sidecar.identity import new_id
from sidecar.protocol import envelope as wire
from sidecar.protocol.ids import show
from sidecar.protocol.window import WINDOW_BYTES

SIDECAR, ME = f"sandbox:{RUN}", "control:me"
MB = 1_000_000


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# 1. A long output, a lost connection, a refused recovery ----------------------------------


async def test_a_long_output_goes_on_after_a_refused_recovery(tmp_path: Path) -> None:
    async with open_stack(tmp_path, sidecars=0) as stack:
        stack.start_sidecar_process()
        run = await stack.attach()
        produced = os.urandom(12 * MB)
        (stack.workspace / "data").write_bytes(produced)
        arrived = bytearray()
        is_lost = False
        async with run.process("echo ran >> count; cat data") as program:
            async for _, chunk in program.output():
                arrived += chunk
                if len(arrived) >= 2 * MB and not is_lost:
                    is_lost = True
                    await stack.lose(SIDECAR, ME)
            completed = await program.wait()
        assert completed.status == 0
        assert arrived == produced
        assert lines_of(stack.workspace / "count") == ["ran"]

        assert (await run.exec("head -c 20000000 /dev/zero")).stdout == bytes(20 * MB)
        info = await run.info()
        assert info["channel"]["reconnects"] == 1
        assert info["attached"] == 1
        await until(lambda: nothing_in_flight(run))


def nothing_in_flight(run: Run) -> bool:
    """Whether the sidecar has seen every byte and message that we ever counted."""
    outbox = run.attachment._outbox
    assert outbox is not None
    window = outbox.window
    return (window.bytes, window.messages) == (window.seen_bytes, window.seen_messages)


@pytest.mark.slow
async def test_what_is_sent_again_through_five_cuts_is_at_most_five_windows(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        produced = os.urandom(30 * MB)
        (stack.workspace / "data").write_bytes(produced)
        arrived, cuts = bytearray(), 0
        async with run.files.open("data") as download:
            async for chunk in download:
                arrived += chunk
                if cuts < 5 and len(arrived) > cuts * 5 * MB:
                    cuts += 1
                    await stack.lose((SIDECAR, ME)[cuts % 2])
        assert (cuts, bytes(arrived)) == (5, produced)
        sent = stack.sidecar.channel.status().bytes_out
        assert sent - len(produced) <= 5 * WINDOW_BYTES + MB


@pytest.mark.parametrize("who", [[SIDECAR], [ME], [SIDECAR, ME]], ids="+".join)
@pytest.mark.parametrize("is_recovered", [True, False], ids=["recovered", "forgotten"])
async def test_files_arrive_equal_through_lost_connections(
    who: list[str], is_recovered: bool, tmp_path: Path
) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        content = os.urandom(6 * MB)

        async def lose(times: int) -> None:
            for _ in range(times):
                await anyio.sleep(0.02)
                for name in who:
                    if not is_recovered:
                        stack.hub.forget(name)
                    await stack.hub.drop(name)

        async with anyio.create_task_group() as group:
            group.start_soon(lose, 2)
            written = await run.files.write("data", content)
        assert written.size == len(content)
        assert (stack.workspace / "data").read_bytes() == content
        async with anyio.create_task_group() as group:
            group.start_soon(lose, 2)
            assert await run.files.read("data") == content


# 2. The controller is killed and comes back -----------------------------------------------

CONTROLLER = """
import sys, anyio
from sidecar.client import Controller

async def main():
    url, ends, goes_on = sys.argv[1:]
    async with Controller.connect(url, controller="me") as controller:
        run = await controller.attach("demo")
        ending = {"shell": ends, "live": False}
        async with run.open("exec.run", ending) as a, run.open("exec.run", {"shell": goes_on}) as b:
            async for _ in b.receiver(1):
                print(a.id.hex(), b.id.hex(), flush=True)

anyio.run(main)
"""


async def read_line(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    with anyio.fail_after(PATIENCE):
        line = await anyio.to_thread.run_sync(child.stdout.readline, abandon_on_cancel=True)
    return line.decode().strip()


async def test_a_killed_controller_comes_back_and_asks(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        produced = os.urandom(3 * MB)
        (stack.workspace / "data").write_bytes(produced)
        ends = "echo a >> count; until [ -e gone ]; do sleep 0.02; done; echo the result"
        goes_on = "echo b >> count; cat data; until [ -e back ]; do sleep 0.02; done; echo end"
        child = stack.start_child("-c", CONTROLLER, stack.url("me"), ends, goes_on)
        a, b = map(bytes.fromhex, (await read_line(child)).split())
        child.kill()
        child.wait()
        (stack.workspace / "gone").touch()
        await until(lambda: stack.sidecar.dispatcher.counts["ended"] == 1)

        run = await stack.attach("me")
        async with run.resume(a) as call:
            completed = await collect(call)
        assert (completed.status, completed.stdout) == (0, b"the result\n")
        async with run.resume(b, streams={1: 0}) as call:
            (stack.workspace / "back").touch()
            output = b"".join([chunk async for chunk in call.receiver(1)])
            assert (await call.wait())["status"] == 0
        assert output == produced + b"end\n"
        assert sorted(lines_of(stack.workspace / "count")) == ["a", "b"]


FOLLOWER = """
import sys, anyio
from sidecar.client import Controller, Cursor

async def main():
    url, cursor = sys.argv[1:]
    async with Controller.connect(url, controller="me") as controller:
        run = await controller.attach("demo")
        async with run.events(Cursor.parse(cursor)) as events:
            async for event in events:
                print(event.cursor, flush=True)

anyio.run(main)
"""


async def test_a_killed_reader_goes_on_from_the_cursor_that_it_knows(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        known, seen = "-:0", []
        for step in range(3):
            last = [stack.sidecar.emit("step", number) for number in range(100)][-1]
            child = stack.start_child("-c", FOLLOWER, stack.url("me"), known)
            while len(seen) < (last if step == 2 else last - 50):
                known = await read_line(child)
                seen.append(int(known.partition(":")[2]))
            child.kill()
            child.wait()
        assert seen == list(range(1, last + 1))


@in_jumping_time
@pytest.mark.slow
async def test_the_attachment_of_a_killed_controller_lapses_and_holds_no_place(
    tmp_path: Path,
) -> None:
    clock = JumpingClock()
    async with open_stack(tmp_path, hub=Hub(HubSettings(), clock), clock=clock) as stack:
        child = stack.start_child("-c", FOLLOWER, stack.url("me"), "-:0")
        with clock.hold():
            await read_line(child)
            child.kill()
            child.wait()
        run = await stack.attach("me", clock=clock)
        exchange = stack.sidecar.exchange
        assert (exchange.attached, exchange.readers) == (3, 1)  # a call's and a reader's, and ours
        began = clock.now()
        while exchange.attached > 1:  # noqa: ASYNC110
            await anyio.sleep(1.0)
        assert clock.now() - began < 92.0
        assert exchange.readers == 0
        assert await run.ping() < 1.0


async def test_what_was_received_to_its_end_can_be_had_again(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.open("exec.run", {"shell": "echo ran >> count; echo hi"}) as call:
            assert [chunk async for chunk in call.receiver(1)] == [b"hi\n"]
            await call.wait()
        await until(lambda: not stack.sidecar.dispatcher._open)
        async with run.resume(call.id, streams={1: 0}) as again:
            assert (await again.wait())["status"] == 0
            assert [chunk async for chunk in again.receiver(1)] == [b"hi\n"]
        with pytest.raises(CallError) as caught:
            async with run.resume(new_id(stack.sidecar.clock)) as unknown:
                await unknown.wait()
        assert caught.value.code is Code.UNKNOWN_CALL
        assert lines_of(stack.workspace / "count") == ["ran"]


async def test_the_same_id_gets_the_first_answer_and_runs_nothing(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        arguments = {"shell": "echo ran >> count; sleep 0.1; echo $$", "live": False}
        call = wire.Call(peer.new_id(), "exec.run", wire.dumps(arguments))
        await peer.send(call, call)
        await peer.send(call)
        first = await peer.result(call.id)
        await peer.send(call)
        assert await peer.result(call.id) == first
        run = await stack.attach("other")
        assert await run.call("exec.run", arguments, id=call.id) == first
        assert lines_of(stack.workspace / "count") == ["ran"]


async def test_events_come_once_each_through_drops_to_several_readers(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        controllers = [await stack.attach(name) for name in ("me", "you")]
        numbers: dict[int, list[int]] = {}

        async def read(index: int, run: Run) -> None:
            seen = numbers[index] = []
            async with run.events(reader="platform" if index == 0 else None) as events:
                async for event in events:
                    seen.append(event.cursor.seq)
                    if event.name == "last":
                        return

        async with anyio.create_task_group() as group:
            for index, run in enumerate(controllers * 2):
                group.start_soon(read, index, run)
            for step in range(300):
                stack.sidecar.means.emit("step", {"step": step, "padding": bytes(1000)})
                await anyio.sleep(0.001)
                if step % 100 == 50:
                    await stack.lose((SIDECAR, ME, "control:you")[step // 100])
            last = stack.sidecar.means.emit("last", None)
        assert [numbers[i] for i in range(4)] == [list(range(1, last + 1))] * 4
        await until(lambda: stack.sidecar.exchange.readers == 0)


async def test_a_reader_that_attaches_anew_takes_no_second_place(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        run = await stack.attach()
        async with run.events() as events:
            await events.receive()
            for step in range(20):  # more than there are places
                stack.sidecar.exchange._strangers.say_hello(now=stack.sidecar.clock.now())
                stack.sidecar.means.emit("step", step)
                assert (await events.receive()).data == step  # type: ignore[union-attr]
            await until(lambda: stack.sidecar.exchange.readers == 1)
            await until(lambda: stack.sidecar.exchange.attached == 2)


# 4. Two controllers, one stalled ----------------------------------------------------------

STALLED = """
import sys, anyio
from sidecar.client import Controller

async def main():
    url, on_full = sys.argv[1:]
    async with Controller.connect(url, controller="stalled") as controller:
        run = await controller.attach("demo")
        size = 0
        shell = "head -c 60000000 /dev/zero; echo done > done"
        async with run.process(shell, on_full=on_full) as program:
            async for _, chunk in program.output():
                if not size:
                    print("begun", flush=True)
                    sys.stdin.readline()  # it is stopped here, and reads nothing any more
                size += len(chunk)
            dropped = (await program.wait()).dropped.get(1, 0)
        print(size, dropped, flush=True)

anyio.run(main)
"""


async def stall(stack: Stack, on_full: str) -> subprocess.Popen[bytes]:
    """A controller that started a program and then stands still."""
    child = stack.start_child("-c", STALLED, stack.url("stalled"), on_full)
    assert await read_line(child) == "begun"
    os.kill(child.pid, signal.SIGSTOP)
    return child


async def go_on(child: subprocess.Popen[bytes]) -> tuple[int, int]:
    """It goes on; how many bytes it got in all, and how many the sidecar dropped."""
    os.kill(child.pid, signal.SIGCONT)
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()
    size, dropped = (await read_line(child)).split()
    return int(size), int(dropped)


async def test_a_stalled_controller_holds_its_program_until_on_full_drops(tmp_path: Path) -> None:
    async with open_stack(tmp_path, hold_time=0.5) as stack:
        run = await stack.attach("other")
        child = await stall(stack, "drop")
        async with run.events() as events:
            times = [await run.ping() for _ in range(20)]
            assert not (stack.workspace / "done").exists()
            name = None
            while name != "exec.ended":  # of the stalled one's program, held and then dropped
                name = (await events.receive()).name  # type: ignore[union-attr]
                times.append(await run.ping())
        assert (stack.workspace / "done").exists()
        assert max(times) < 0.5
        size, dropped = await go_on(child)
        assert size + dropped == 60 * MB
        assert 30 * MB < dropped < 50 * MB


@pytest.mark.slow
async def test_a_stalled_controller_holds_its_program_for_ever_if_it_says_so(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path, hold_time=0.1) as stack:
        run = await stack.attach("other")
        child = await stall(stack, "hold")
        await anyio.sleep(0.5)
        assert not (stack.workspace / "done").exists()
        assert await run.ping() < 0.5
        assert await go_on(child) == (60 * MB, 0)
        assert (stack.workspace / "done").exists()


# 8. A call by REST ------------------------------------------------------------------------


async def test_a_call_by_rest_is_run_by_the_one_it_names(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path, sidecars=0) as stack,
        raw_peer(stack.hub, "platform") as platform,
    ):
        stack.start_sidecar_process()
        stack.start_sidecar_process()
        first = (await platform.expect(wire.Hello, timeout=PATIENCE)).incarnation
        second = (await platform.expect(wire.Hello, timeout=PATIENCE)).incarnation
        assert first != second
        id = platform.new_id()
        shell = {"shell": "echo ran >> count; echo hi; exit 3"}
        call = wire.Call(id, "exec.run", wire.dumps(shell), reply="platform", incarnation=second)
        for _ in range(3):  # a platform that is not sure may send it again
            await send_to_sidecar(stack.hub, call)
            value = await platform.result(id)
            assert (value["status"], value["stdout"]["data"]) == (3, b"hi\n")
        assert lines_of(stack.workspace / "count") == ["ran"]


async def test_by_rest_a_large_answer_needs_an_attachment(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub, "platform") as platform:
        (stack.workspace / "large").write_bytes(bytes(100_000))
        (stack.workspace / "small").write_bytes(b"small")
        options = {"reply": "platform", "incarnation": stack.sidecar.incarnation}

        async def send(command: str, arguments: dict[str, Any]) -> bytes:
            id = platform.new_id()
            call = wire.Call(id, command, wire.dumps(arguments), credit=1 << 20, **options)
            await send_to_sidecar(stack.hub, call)
            return id

        value = await platform.result(await send("files.read", {"path": "small"}))
        assert value["content"] == b"small"
        error = await platform.error(await send("files.read", {"path": "large"}))
        assert (error.code, error.started) == (Code.NEEDS_ATTACHMENT, Started.NO)
        shell = {"shell": "head -c 40000000 /dev/zero", "on_full": "hold"}
        error = await platform.error(await send("exec.run", shell))
        assert (error.code, error.started) == (Code.NEEDS_ATTACHMENT, Started.YES)


async def test_by_rest_without_an_incarnation_only_reading_is_served(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path, sidecars=2) as stack,
        raw_peer(stack.hub, "platform") as platform,
    ):
        ping, touch = platform.new_id(), platform.new_id()
        call = wire.Call(ping, "sidecar.ping", wire.dumps({}), reply="platform")
        await send_to_sidecar(stack.hub, call)
        for _ in stack.sidecars:
            assert "pong" in await platform.result(ping)
        arguments = wire.dumps({"argv": ["touch", "ran"]})
        await send_to_sidecar(stack.hub, wire.Call(touch, "exec.run", arguments, reply="platform"))
        for _ in stack.sidecars:
            error = await platform.error(touch)
            assert (error.code, error.started) == (Code.FORBIDDEN, Started.NO), show(touch)
        assert not (stack.workspace / "ran").exists()
