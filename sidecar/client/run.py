"""One run, as the platform sees it: call its commands, run its programs, follow its events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

import anyio

from sidecar.client.attachment import RemoteAttachment
from sidecar.client.events import Cursor, EventStream
from sidecar.client.exec import Completed, Process, collect
from sidecar.client.files import Files
from sidecar.client.pending import PendingCall
from sidecar.client.processes import (
    CREDIT,
    ProcessInfo,
    RemoteProcess,
    find_process,
    processes_of,
)
from sidecar.client.program import Options, Words, program_arguments
from sidecar.client.shell import CLOSE_TIME, ShellOptions, ShellSession, start_shell
from sidecar.errors import Invalid, LimitExceeded
from sidecar.identity import new_id
from sidecar.protocol import envelope as wire
from sidecar.protocol.limits import ANSWER_BYTES, ARGUMENTS_BYTES, STREAM_CREDIT
from sidecar.protocol.streams import STDIN, SendStream
from sidecar.streaming import BytesSource, Sender, Source
from sidecar.streaming.pushing import PushSource

if TYPE_CHECKING:
    from sidecar.client.controller import Controller

START = Cursor()


class Run:
    """An attachment to the sidecar of a run. It mends itself after every loss.

    async with Controller.connect(url, controller="me") as controller:
        run = await controller.attach("demo")
        print((await run.exec(["git", "status"])).stdout.decode())
    """

    def __init__(self, controller: Controller, attachment: RemoteAttachment) -> None:
        self.attachment = attachment
        self.files = Files(self)
        self._controller = controller

    @property
    def id(self) -> str:
        return self.attachment.subject.run

    @property
    def incarnation(self) -> bytes:
        """Which process answers; another one after a restart of the sidecar."""
        assert self.attachment.answer is not None
        return self.attachment.answer.incarnation

    @property
    def split_brain(self) -> bool:
        """Two sidecars answered for this run; the newer one is spoken to."""
        return self.attachment.split_brain

    # calls --------------------------------------------------------------------------------

    async def call(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadline: float | None = None,
        id: bytes | None = None,
    ) -> Any:
        """Call any command of the catalogue; the value of its result. Raises `CallError`.

        `deadline` is seconds from acceptance. With an `id` of an earlier call nothing runs, and
        its first answer comes again. Cancelling this cancels the call.
        """
        async with self.open(command, arguments, deadline=deadline, id=id) as call:
            return await call.wait()

    @asynccontextmanager
    async def open(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadline: float | None = None,
        id: bytes | None = None,
        credit: int = CREDIT,
    ) -> AsyncIterator[PendingCall]:
        """A call with its streams. Leaving the block before its end cancels it."""
        encoded = _encoded(command, arguments)
        if len(encoded) > ARGUMENTS_BYTES:
            raise LimitExceeded("bytes of arguments", size=len(encoded), limit=ARGUMENTS_BYTES)
        envelope = wire.Call(
            id or new_id(self._controller.clock),
            command,
            encoded,
            credit=credit,
            deadline_ms=None if deadline is None else max(1, int(deadline * 1000)),
        )
        call = self._pending(envelope.id, envelope, credit)
        self.attachment.start(call)
        try:
            yield call
        finally:
            self.attachment.cancel(call)
            self.attachment.forget(call)

    @asynccontextmanager
    async def resume(
        self, id: bytes, *, streams: Mapping[int, int] | None = None
    ) -> AsyncIterator[PendingCall]:
        """A call of an earlier life, by its id alone: `await call.wait()` for its result.

        Nothing runs by this. `streams` are the ones to go on with, each with the offset up to
        which there is no need of it any more. Leaving the block cancels nothing, but breaks off
        those streams. Raises `CallError`: `unknown_call` if the sidecar never heard of it,
        `answer_gone` for what it no longer keeps.
        """
        call = self._pending(id, None, CREDIT)
        for n, offset in (streams or {}).items():
            call.receiver(n, start=offset)
        self.attachment.start(call)
        try:
            yield call
        finally:
            self.attachment.forget(call)

    def _pending(self, id: bytes, call: wire.Call | None, credit: int) -> PendingCall:
        return PendingCall(
            id, call, credit=credit, clock=self._controller.clock, send=self.attachment.send
        )

    def send(self, call: PendingCall, n: int, source: Source) -> Sender:
        """Send stream `n` of `call` from `source`."""
        sender = Sender(
            SendStream(call.id, n, limit=self._credit()),
            source,
            clock=self._controller.clock,
            wake=self._controller.wake,
        )
        self.attachment.add_sender(call, sender)
        self._controller.start_sender(sender)
        return sender

    def _credit(self) -> int:
        answer = self.attachment.answer
        assert answer is not None
        return answer.limits.get("credit", STREAM_CREDIT)

    async def info(self) -> dict[str, Any]:
        """Who the sidecar is, what it can do, and how it is."""
        value: dict[str, Any] = await self.call("sidecar.info")
        return value

    async def ping(self) -> float:
        """Seconds of a round trip through channel and sidecar."""
        began = self._controller.clock.now()
        await self.call("sidecar.ping")
        return self._controller.clock.now() - began

    async def end(self, timeout: float | None = None) -> dict[str, Any]:
        """End the run: its sidecar takes no new calls, gives open ones up to `timeout` seconds
        (None: as it is set), delivers what it has, and ends for good. Returns when it has begun:
        `calls`, `events` and `messages` are what it waits for."""
        value: dict[str, Any] = await self.call("run.end", {"timeout": timeout})
        return value

    async def forget_reader(self, name: str) -> None:
        """The durable reader of that name will not come back: nothing is held for it any more,
        and no end of the run waits for it."""
        await self.call("events.forget", {"reader": name})

    # programs -----------------------------------------------------------------------------

    async def exec(
        self, program: Words, *, input: bytes | None = None, **options: Unpack[Options]
    ) -> Completed:
        """Run a program to its end: a list is its argv, a string goes to the shell.

        Its status is in the answer, not an exception: see `Completed.check`. Raises `CallError`:
        `timeout` (`details` say which, and have the partial `output`), `not_found`, `outside`, ...
        """
        arguments = program_arguments(program, options) | {"live": False}
        small = input is None or len(input) <= ANSWER_BYTES
        if input is not None:
            arguments["stdin"] = input if small else "stream"
        async with self.open("exec.run", arguments) as call:
            if input is not None and not small:
                self.send(call, STDIN, BytesSource(input))
            return await collect(call)

    @asynccontextmanager
    async def process(
        self, program: Words, *, stdin: bool = False, **options: Unpack[Options]
    ) -> AsyncIterator[Process]:
        """A program with live output. Leaving the block kills it if it still runs."""
        arguments = program_arguments(program, options) | {"live": True}
        if stdin:
            arguments["stdin"] = "stream"
        async with self.open("exec.run", arguments) as call:
            source = None
            if stdin:
                source = PushSource()
                self.send(call, STDIN, source)
            yield Process(RemoteProcess(self, call.id), call, source)

    async def start(
        self, program: Words, *, stdin: bool | bytes = False, **options: Unpack[Options]
    ) -> RemoteProcess:
        """Start a program that lives on without us; a handle on it.

        `stdin`: none, the bytes themselves (64 KiB at most), or True for an input that stays
        open until somebody ends it.
        """
        arguments = program_arguments(program, options)
        if stdin is not False:
            arguments["stdin"] = "stream" if stdin is True else stdin
        answer = await self.call("exec.start", arguments)
        return RemoteProcess(self, answer["exec"], answer["pid"])

    @asynccontextmanager
    async def shell(self, **options: Unpack[ShellOptions]) -> AsyncIterator[ShellSession]:
        """A shell whose working directory and variables live from command to command.

        Leaving the block ends it, and all that it left running.
        """
        session = await start_shell(self, options)
        try:
            yield session
        finally:
            with anyio.move_on_after(CLOSE_TIME, shield=True):
                await session.close()

    async def processes(self) -> list[ProcessInfo]:
        """The programs that run, and those that ended and are still remembered; oldest first."""
        return await processes_of(self)

    async def find(self, id: bytes | str) -> RemoteProcess:
        """A program by its exec id, or by so much of its text as no other begins with.

        Raises `CallError`: `not_found`, or `invalid` if it could be several.
        """
        return await find_process(self, id)

    # events -------------------------------------------------------------------------------

    def events(self, after: Cursor = START, *, reader: str | None = None) -> EventStream:
        """Events after the cursor, oldest first, then live ones, for ever. Each comes once.

        With a `reader` name this is a durable reader: the sidecar keeps what it has not
        processed, as far as its bounds allow. Asking for the next event says that the last one
        is processed.
        """
        return self._controller.events(self.id, after=after, reader=reader)

    async def detach(self) -> None:
        """End the attachment. Calls that run go on."""
        self._controller.detach(self.attachment)
        await anyio.lowlevel.checkpoint()


def _encoded(command: str, arguments: Mapping[str, Any] | None) -> bytes:
    try:
        return wire.dumps(dict(arguments or {}))
    except UnicodeEncodeError as error:
        raise Invalid(
            f"{command}: {error.object[error.start]!r} in an argument is half a character: what is"
            " not UTF-8 travels as bytes, where bytes are taken"
        ) from None
