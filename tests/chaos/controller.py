"""The controller as a process that may be killed: `python -m tests.chaos.launch ... controller`.

It makes its calls until it is told to finish, writes down what it is about to do and what it
was told, and takes up after a kill with nothing but that. It tells the conductor on standard
output what happens (`call`, `chunk`, `event`, `done`), so that faults can be counted by it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sidecar.client import CallError, Code, Controller, Event, Retry, Run, Started, TokenFile
from sidecar.client.pending import PendingCall
from sidecar.clock import SystemClock
from sidecar.identity import new_id
from sidecar.protocol.streams import CONTENT, STDERR, STDOUT
from sidecar.streaming import BytesSource
from tests.chaos.book import Book, Called, EventBook
from tests.chaos.workload import PROGRAMS, Kind, Operation, content, operation

ATTACH_TIME = 2.0  # seconds of one try
AGAIN = 5  # attempts at one operation
PAUSE = 0.2  # seconds between two
NAMES = {STDOUT: "stdout", STDERR: "stderr"}
DURABLE = "platform"


class Worker:
    """Everything that one life of the controller does."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.folder = Path(settings["folder"])
        self.seed: int = settings["seed"]
        self.workers: int = settings["workers"]
        self.most: int = settings["operations"]
        self.run_id: str = settings["run"]
        self.name: str = settings["controller"]
        self.tokens = TokenFile(settings["token_file"], settings["url"])
        self.book = Book(self.folder)
        self.next = 1 + max((call.number for call in self.book.calls.values()), default=-1)
        self.clock = SystemClock()
        self.finishing = anyio.Event()
        self.run: Run

    async def main(self) -> None:
        async with Controller.connect(self.tokens, controller=self.name) as controller:
            self.run = await self._attach(controller)
            say("attached")
            async with anyio.create_task_group() as readers:
                reading = [
                    Reading(self.folder / "events-durable", DURABLE),
                    Reading(self.folder / "events-passing", None),
                ]
                for one in reading:
                    readers.start_soon(one.follow, self.run)
                await self._work()
                last = (await self.run.info())["events"]["last"]
                for one in reading:
                    await one.reached(last)
                readers.cancel_scope.cancel()
            self.book.note("finished", id="", last=last)
            await self.run.detach()

    async def _attach(self, controller: Controller) -> Run:
        while True:
            try:
                return await controller.attach(self.run_id, timeout=ATTACH_TIME)
            except CallError as error:
                say(f"attach {error.code}")
                await anyio.sleep(PAUSE)

    async def _work(self) -> None:
        open_calls = [call for call in self.book.calls.values() if call.done is None]
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen, group.cancel_scope)
            async with anyio.create_task_group() as workers:
                for call in open_calls:
                    workers.start_soon(self._take_up, call)
                for _ in range(self.workers):
                    workers.start_soon(self._repeat)
            group.cancel_scope.cancel()

    async def _listen(self, scope: anyio.CancelScope) -> None:
        """One line from the conductor: finish. The end of its output: nobody wants us."""
        line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        if not line:
            os._exit(3)
        self.finishing.set()

    async def _repeat(self) -> None:
        while not self.finishing.is_set() and self.next < self.most:
            number, self.next = self.next, self.next + 1
            await self._operate(operation(self.seed, number))

    # one operation ------------------------------------------------------------------------

    async def _operate(self, op: Operation, attempt: int = 0) -> None:
        """Until it succeeds, or fails in a way that forbids another attempt."""
        id = new_id(self.clock)
        while attempt < AGAIN:
            self.book.note(
                "call", id=id.hex(), number=op.number, attempt=attempt, at=time.monotonic()
            )
            say("call", id)
            try:
                async with self.run.open(*_request(op, id, self.seed), id=id) as call:
                    if op.kind is Kind.WRITE and op.size > SMALL:
                        data = content(self.seed, op.path, op.size)
                        self.run.send(call, CONTENT, BytesSource(data))
                    error = await self._finish(call, op)
            except CallError as failure:  # the attachment was refused
                error = failure
                self._failed(id, failure)
            if error is None or not _may_be_repeated(error, op):
                return
            if error.retry is not Retry.SAME_ID:
                id = new_id(self.clock)
            attempt += 1
            await anyio.sleep(PAUSE)

    async def _take_up(self, known: Called) -> None:
        """A call of an earlier life."""
        op = operation(self.seed, known.number)
        self.book.note("resume", id=known.mark)
        say("call", known.id)
        have = {n: self.book.received(known.id, n) for n in _incoming(op)}
        async with self.run.resume(known.id, streams=have) as call:
            if op.kind is Kind.WRITE and op.size > SMALL:  # its bytes are no longer ours to send
                self.book.note("cancel", id=known.mark)
                self.run.attachment.cancel(call)
            error = await self._finish(call, op, may_be_unknown=True)
        if error is not None and error.code is Code.UNKNOWN_CALL:
            error = await self._fence(known, op)
        if error is not None and _may_be_repeated(error, op):
            await self._operate(op, known.attempt + 1)

    async def _fence(self, known: Called, op: Operation) -> CallError | None:
        """It may still be on its way: see to it that it will not run, or learn how it ended."""
        self.book.note("cancel", id=known.mark)
        while True:
            async with self.run.resume(known.id) as call:
                self.run.attachment.cancel(call)
                error = await self._finish(call, op, may_be_unknown=True)
            if error is None or error.code is not Code.UNKNOWN_CALL:
                return error
            await anyio.sleep(PAUSE)

    async def _finish(
        self, call: PendingCall, op: Operation, *, may_be_unknown: bool = False
    ) -> CallError | None:
        """Take its streams and its result, and write both down."""
        failures: dict[str, str] = {}
        async with anyio.create_task_group() as group:
            for n in _incoming(op):
                group.start_soon(self._receive, call, n, failures)
            try:
                value = await call.wait()
            except CallError as error:
                if not (may_be_unknown and error.code is Code.UNKNOWN_CALL):
                    await self._let_end(call, op)
                    self._failed(call.id, error)
                group.cancel_scope.cancel()
                return error
        self._keep_inline(call.id, value)
        ends = {n: call.receiver(n).position for n in _incoming(op)}
        self.book.note(
            "done",
            id=call.id.hex(),
            at=time.monotonic(),
            outcome="ok",
            value=_plain(value),
            ends=ends,
            failures=failures,
        )
        say("done", call.id)
        if failures and op.kind is Kind.READ:
            return CallError(Code(next(iter(failures.values()))), "its stream", started=Started.YES)
        return None

    async def _receive(self, call: PendingCall, n: int, failures: dict[str, str]) -> None:
        receiver = call.receiver(n)
        file = os.open(self.book.output(call.id, n), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            at = receiver.position
            while chunk := await receiver.receive():
                begin = receiver.position - len(chunk)
                self._note_skip(call.id, n, at, begin)
                os.pwrite(file, chunk, begin)
                at = receiver.position
                say("chunk", call.id)
            self._note_skip(call.id, n, at, receiver.position)
        except CallError as error:
            failures[str(n)] = str(error.code)
        finally:
            os.close(file)

    def _note_skip(self, id: bytes, n: int, begin: int, end: int) -> None:
        if end > begin:
            self.book.note("skip", id=id.hex(), n=n, **{"from": begin, "to": end})

    async def _let_end(self, call: PendingCall, op: Operation) -> None:
        """Streams that the failed result announces are still on their way; bounded."""
        with anyio.move_on_after(1.0):
            for n in _incoming(op):
                receiver = call.receiver(n)
                while receiver.error is None and receiver.stream.ended is None:  # noqa: ASYNC110
                    await anyio.sleep(0.01)

    def _keep_inline(self, id: bytes, value: Mapping[str, Any]) -> None:
        """Output that stood in the result."""
        for n, name in NAMES.items():
            described = value.get(name)
            if isinstance(described, Mapping) and "data" in described:
                self.book.output(id, n).write_bytes(described["data"])

    def _failed(self, id: bytes, error: CallError) -> None:
        self.book.note(
            "done",
            id=id.hex(),
            at=time.monotonic(),
            outcome=str(error.code),
            message=error.message,
            started=str(error.started),
            retry=str(error.retry),
        )
        say("done", id)


class Reading:
    """One reader of the events, with a book of its own."""

    def __init__(self, path: Path, name: str | None) -> None:
        self._book = EventBook(path)
        self._name = name
        self._moved = anyio.Event()

    async def follow(self, run: Run) -> None:
        async with run.events(after=self._book.cursor, reader=self._name) as events:
            async for item in events:
                self._book.note(item)
                say("event" if isinstance(item, Event) else "gap")
                self._moved.set()

    async def reached(self, seq: int) -> None:
        """Until it has all events up to `seq`."""
        while self._book.cursor.seq < seq:
            self._moved = anyio.Event()
            await self._moved.wait()


SMALL = 60 * 1024  # bytes of a file that ride in the call


def _request(op: Operation, id: bytes, seed: int) -> tuple[str, dict[str, Any]]:
    match op.kind:
        case Kind.PING:
            return "sidecar.ping", {"payload": id}
        case Kind.READ:
            return "files.read", {"path": op.path, "inline": False}
        case Kind.WRITE:
            if op.size > SMALL:
                return "files.write", {"path": op.path, "size": op.size}
            return "files.write", {
                "path": op.path,
                "content": content(seed, op.path, op.size),
            }
    return "exec.run", {"shell": op.program(id.hex()), "live": op.kind is not Kind.MARK}


def _incoming(op: Operation) -> tuple[int, ...]:
    if op.kind in PROGRAMS:
        return (STDOUT, STDERR)
    return (CONTENT,) if op.kind is Kind.READ else ()


def _may_be_repeated(error: CallError, op: Operation) -> bool:
    """Whether the error allows it; what has no effects may be repeated anyhow."""
    if error.retry is Retry.SAME_ID or not op.has_effects:
        return True
    return error.retry is Retry.NEW_ID and error.started is Started.NO


def _plain(value: Any) -> Any:
    """As JSON has it: bytes as their hexadecimal digits, output left out."""
    match value:
        case bytes():
            return value.hex()
        case Mapping():
            return {key: _plain(item) for key, item in value.items() if key != "data"}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


def say(what: str, id: bytes | None = None) -> None:
    line = what if id is None else f"{what} {id.hex()}"
    os.write(1, line.encode() + b"\n")


def main(settings_file: str) -> None:
    anyio.run(Worker(json.loads(Path(settings_file).read_text())).main)
