"""`exec.run`: a program from start to end in one call, its output live.

Output goes from the pipe into a spool and from there to whoever asked last. While he makes
progress the program waits for him; 30 s after his last progress, `on_full` decides. The call
ends with the *program*: a background child that still holds the pipe delays it by a tenth of
a second at most, and what it prints later is read and thrown away, so that it does not die
of SIGPIPE. A status is reported only if it was observed by wait.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sidecar.context import CallContext, Handler
from sidecar.dispatch import INLINE_BYTES
from sidecar.errors import CallError, Code, Started
from sidecar.hands.interface import Exit, Program, Running
from sidecar.pipes import PipeReader, PipeWriter
from sidecar.protocol.commands import ExecRun
from sidecar.protocol.spool import OnFull
from sidecar.protocol.streams import STDERR, STDIN, STDOUT, Piece
from sidecar.spool import Spool

SMALL = (INLINE_BYTES - 2048) // 2  # output of one kind that stands in the result
LINGER = 0.1  # seconds after the program's end that a pipe held by a child is still read
KILL_SLACK = 5.0  # seconds beyond the grace until a kill is given up


class SpoolSource:
    """A spool as a stream; what the receiver has sets the program's pace."""

    def __init__(self, spool: Spool, reader: PipeReader) -> None:
        self._spool = spool
        self._reader = reader
        self._next = 0
        self._skipped = 0

    async def read(self, offset: int, size: int) -> Piece:
        await self._spool.wait_data(offset)
        piece = await self._spool.read(offset, size)
        self._skipped += max(0, piece.offset - max(offset, self._next))
        self._next = max(self._next, piece.offset + len(piece.data))
        return piece

    @property
    def dropped(self) -> int:
        """Bytes that were gone before they could be sent."""
        return self._skipped + self._spool.missing(self._next)

    def release(self, offset: int) -> None:
        self._spool.progress(offset)

    async def aclose(self) -> None:
        """The stream is over. If it was broken off, the program prints on, for nobody."""
        self._reader.discard()
        self._spool.close()


class Output:
    """One of the two outputs of a program: pipe, spool, and its stream once there is one."""

    def __init__(self, ctx: CallContext, n: int, fd: int, arguments: ExecRun) -> None:
        self.spool = Spool(
            ctx.means.state_folder,
            ctx.means.clock,
            ctx.means.spools,
            hold_time=ctx.means.hold_time,
            # Without credit there will be no stream, so nobody who could make room.
            on_full=OnFull(arguments.on_full) if ctx.credit else OnFull.DROP,
        )
        self.reader = PipeReader(fd, self.spool, on_data=self._outgrow, on_full=self._wait_room)
        self.has_tasks = False
        self._refusal: CallError | None = None
        self._group: TaskGroup | None = None
        self._ctx = ctx
        self._n = n
        self._source: SpoolSource | None = None
        if arguments.live and ctx.credit:
            self._send()

    def begin(self, group: TaskGroup) -> None:
        """Read from the pipe from here on. Most outputs never need a task; those that do have
        it in `group`."""
        self._group = group
        self.reader.listen()

    def settle(self) -> bool:
        """The program has ended: whether its pipe has, too."""
        self.reader.flush()
        return self.reader.finished.is_set()

    async def finish(self) -> None:
        """Take what the program left in the pipe, however long that takes, and what its children
        print in the next moment."""
        owed = self.reader.taken + self.reader.waiting
        while self.reader.taken < owed and not self.reader.is_over:
            await self.reader.progress.wait()
        with anyio.move_on_after(LINGER):
            await self.reader.finished.wait()
        self.reader.discard()

    async def answer(self) -> dict[str, Any]:
        """What the result says of this output."""
        spool = self.spool
        answer: dict[str, Any] = {"size": spool.size}
        dropped = spool.missing(0) if self._source is None else self._source.dropped
        if dropped:
            answer["dropped"] = dropped
        if spool.disk_error is not None:
            answer["disk_error"] = spool.disk_error
        if self._source is not None:
            return answer
        if self._refusal is not None:
            raise self._refusal
        if spool.size > SMALL:
            raise CallError(
                Code.NEEDS_ATTACHMENT,
                f"it printed {spool.size} bytes, more than a result holds: attach to get them",
                started=Started.YES,
            )
        answer["data"] = (await spool.read(0, SMALL)).data if spool.size else b""
        return answer

    def close(self) -> None:
        """End the spool; without a stream nobody needs it any more."""
        if not self.reader.is_over:
            self.reader.stop()
        self.spool.end()
        if self._source is None:
            self.spool.close()

    def _outgrow(self) -> None:
        """Output that outgrows the result becomes a stream at once."""
        is_asked = self._source is not None or self._refusal is not None
        if self.spool.size > SMALL and not is_asked and self._ctx.credit:
            try:
                self._send()
            except CallError as error:  # too many streams: it ends the call, and so the program
                self._refusal = error
                self._start(self._refuse)

    def _wait_room(self) -> None:
        self._start(self.reader.wait_room)

    def _start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._group is not None, "begin() comes first"
        self.has_tasks = True
        self._group.start_soon(function)

    async def _refuse(self) -> None:
        assert self._refusal is not None
        raise self._refusal

    def _send(self) -> None:
        self.spool.follow(0)
        self._source = SpoolSource(self.spool, self.reader)
        self._ctx.send(self._n, self._source)


async def run(ctx: CallContext, arguments: ExecRun) -> dict[str, Any]:
    """See `ExecRun`."""
    program = Program(
        argv=arguments.argv,
        shell=arguments.shell,
        cwd=arguments.cwd,
        env=arguments.env,
        unset=arguments.unset,
        stdin=arguments.stdin != "none",
    )
    await ctx.started()
    began = ctx.means.clock.now()
    running = await ctx.hands.spawn(program, key=ctx.id)
    assert running.stderr is not None, "it has pipes"
    outputs = [
        Output(ctx, STDOUT, running.stdout, arguments),
        Output(ctx, STDERR, running.stderr, arguments),
    ]
    ctx.emit("exec.started", {"pid": running.pid})
    try:
        ended, timed_out = await _attend(ctx, arguments, running, outputs)
        answer = {
            **_describe(ended),
            "pid": running.pid,
            "duration": ctx.means.clock.now() - began,
            "stdout": await outputs[0].answer(),
            "stderr": await outputs[1].answer(),
        }
    finally:
        for output in outputs:
            output.close()
    if timed_out:
        raise CallError(
            Code.TIMEOUT,
            f"the program ran longer than {arguments.timeout:g} s and was killed",
            started=Started.YES,
            which="total",
            **answer,
        )
    return answer


async def _attend(
    ctx: CallContext, arguments: ExecRun, running: Running, outputs: list[Output]
) -> tuple[Exit, bool]:
    """Feed the program and drain it until it has ended; whether the timeout ended it."""
    async with anyio.create_task_group() as group:
        for output in outputs:
            output.begin(group)
        try:
            if running.stdin is not None:
                group.start_soon(_feed, ctx, arguments, PipeWriter(running.stdin))
            ended, timed_out = await _wait(ctx, arguments)
            unsettled = [output for output in outputs if not output.settle()]
            if unsettled:
                async with anyio.create_task_group() as finishing:
                    for output in unsettled:
                        finishing.start_soon(output.finish)
        except BaseException:
            await _end_early(ctx, arguments, running)
            raise
        finally:
            with anyio.CancelScope(shield=True), suppress(CallError):  # may still run, unkillable
                await ctx.hands.forget(ctx.id)
        if running.stdin is not None or any(output.has_tasks for output in outputs):
            group.cancel_scope.cancel()
    _note_end(ctx, running, ended)
    return ended, timed_out


async def _wait(ctx: CallContext, arguments: ExecRun) -> tuple[Exit, bool]:
    with anyio.move_on_after(arguments.timeout):
        return await ctx.hands.wait(ctx.id), False
    await _kill(ctx, arguments)
    with anyio.move_on_after(KILL_SLACK):
        return await ctx.hands.wait(ctx.id), True
    raise CallError(
        Code.OUTCOME_UNKNOWN,
        "the program was killed and did not end; its status is unknown",
        started=Started.YES,
    )


async def _end_early(ctx: CallContext, arguments: ExecRun, running: Running) -> None:
    """The call is over, whatever the program does: kill it, and put on record how it ended."""
    await _kill(ctx, arguments)
    with anyio.move_on_after(KILL_SLACK, shield=True), suppress(CallError):
        _note_end(ctx, running, await ctx.hands.wait(ctx.id))


def _note_end(ctx: CallContext, running: Running, ended: Exit) -> None:
    ctx.emit("exec.ended", {"pid": running.pid, **_describe(ended)})


async def _kill(ctx: CallContext, arguments: ExecRun) -> None:
    """TERM, then KILL: also when the call itself is being cancelled."""
    with anyio.move_on_after(arguments.grace + KILL_SLACK, shield=True):
        await ctx.hands.kill(ctx.id, grace=arguments.grace)


async def _feed(ctx: CallContext, arguments: ExecRun, writer: PipeWriter) -> None:
    """Standard input, from the arguments or from stream 0; its end is the end of input."""
    try:
        if isinstance(arguments.stdin, bytes):
            await writer.write(arguments.stdin)
            return
        receiver = ctx.receiver(STDIN)
        try:
            while chunk := await receiver.receive():
                if not await writer.write(chunk):
                    receiver.reset(_closed())
                    return
        except CallError:
            return  # broken off by the sender, or told to it by the receiver: input ends here
        except anyio.get_cancelled_exc_class():
            receiver.reset(_closed())
            raise
    finally:
        writer.close()


def _closed() -> CallError:
    return CallError(Code.CANCELLED, "the program reads no more input", started=Started.YES)


def _describe(ended: Exit) -> dict[str, Any]:
    return {
        "status": ended.status,
        "signal": ended.signal,
        "user_cpu": ended.user_cpu,
        "system_cpu": ended.system_cpu,
        "max_rss": ended.max_rss,
    }


HANDLERS: dict[str, Handler] = {"exec.run": run}
