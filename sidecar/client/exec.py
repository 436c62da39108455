"""Programs in the sandbox: run one to its end, or take part while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from sidecar.bell import Bell
from sidecar.client.pending import PendingCall
from sidecar.errors import CallError, Started
from sidecar.protocol.streams import STDERR, STDOUT
from sidecar.streaming import Receiver
from sidecar.streaming.pushing import PushSource

if TYPE_CHECKING:
    from sidecar.client.processes import RemoteProcess


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended, as observed. Exactly one of `status` and `signal` is set.

    `dropped` counts output bytes that were not kept, by stream number (1 stdout, 2 stderr).
    `gaps`, by the same, are the offsets at which the sidecar lost some because it was killed:
    nobody knows how many, and the offsets behind do not count them.
    """

    status: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    duration: float  # seconds
    dropped: Mapping[int, int]
    gaps: Mapping[int, Sequence[int]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def returncode(self) -> int:
        """As a shell has it: the status, or 128 + the signal."""
        if self.status is not None:
            return self.status
        assert self.signal is not None
        return 128 + self.signal

    def check(self) -> Completed:
        """This, if the program succeeded; else raises `ProgramFailed`."""
        if not self.ok:
            raise ProgramFailed(self)
        return self


class ProgramFailed(Exception):
    """A program ended with another status than 0. Not an error of the sidecar."""

    def __init__(self, completed: Completed) -> None:
        tail = completed.stderr[-500:].decode(errors="replace").strip()
        super().__init__(f"ended with {completed.returncode}" + (f": {tail}" if tail else ""))
        self.completed = completed


class Process:
    """A program that runs: its output as it comes, its input, its end.

    `remote` is its handle, for what needs no stream: signals, a new size, what it printed before.
    `stdout.position` is the offset up to which that output was handed over.
    """

    def __init__(self, remote: RemoteProcess, call: PendingCall, source: PushSource | None) -> None:
        self.remote = remote
        self._call = call
        self._source = source
        self.stdout: Receiver = call.receiver(STDOUT)
        self.stderr: Receiver = call.receiver(STDERR)

    @property
    def call_id(self) -> bytes:
        return self._call.id

    async def write(self, data: bytes) -> None:
        """To standard input. Raises `anyio.BrokenResourceError` once the program reads no more."""
        if self._source is None:
            raise ValueError("there is no way to its input: pass stdin=True, or input=True")
        await self._source.push(data)

    def close_stdin(self) -> None:
        """The end of input."""
        if self._source is not None:
            self._source.end()

    async def leave_stdin(self) -> None:
        """The end of what we write, as `close_stdin`, once the sidecar has all of it: whoever
        leaves earlier takes back what is still on its way."""
        if self._source is not None:
            self._source.end()
            await self._source.received()

    @property
    def skipped(self) -> dict[int, list[tuple[int, int]]]:
        """By output, the ranges of offsets that were gone before they could be sent."""
        return {n: r.stream.skipped for n, r in ((STDOUT, self.stdout), (STDERR, self.stderr))}

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1, bytes) of stdout and (2, bytes) of stderr as they come, until both end."""
        bell = Bell()
        streams = {STDOUT: self.stdout, STDERR: self.stderr}
        for receiver in streams.values():
            receiver.on_progress = bell.ring
        while streams:
            ready = [n for n, receiver in streams.items() if receiver.is_ready]
            if not ready:
                await bell.wait()
            for n in ready:
                chunk = await streams[n].receive()
                if chunk:
                    yield n, chunk
                else:
                    del streams[n]

    def cancel(self) -> None:
        """End the call. A program of `Run.process` is killed, and `wait` raises `cancelled` when
        that is done; one that was attached to is left as it is."""
        self.remote.run.attachment.cancel(self._call)

    async def wait(self) -> Completed:
        """How it ended; the output is whatever was not read through `stdout` and `stderr`."""
        value = await self._call.wait()
        if value.get("state") == "running":  # attached to without following
            return await self.remote.wait()
        return completed_of(value, b"", b"")


async def collect(call: PendingCall) -> Completed:
    """Result and output of a program that nobody watches.

    Output that outgrows the result comes as a stream while the program runs, and has to be read
    at once: the program waits for it. Most does not, and then there is no task for it either.
    """
    failed: CallError | None = None
    async with anyio.create_task_group() as group:
        gathered = {n: _Gathered(call.receiver(n), group) for n in (STDOUT, STDERR)}
        try:
            value: Mapping[str, Any] = await call.wait()
        except CallError as error:
            failed, value = error, error.details
        output = {
            n: await gathered[n].output(value.get(name, {}))
            for n, name in ((STDOUT, "stdout"), (STDERR, "stderr"))
        }
        if any(one.has_begun for one in gathered.values()):
            group.cancel_scope.cancel()
    failed = failed or gathered[STDOUT].failed or gathered[STDERR].failed
    if failed is not None:
        if failed.started is Started.YES:
            failed.details["output"] = output
        raise failed
    return completed_of(value, output[STDOUT], output[STDERR])


class _Gathered:
    """The bytes of one stream, if there will be one."""

    def __init__(self, receiver: Receiver, group: TaskGroup) -> None:
        self.failed: CallError | None = None
        self.has_begun = False
        self._receiver = receiver
        self._group = group
        self._chunks: list[bytes] = []
        self._done = anyio.Event()
        receiver.on_progress = self._note_progress

    async def output(self, described: Mapping[str, Any]) -> bytes:
        """All of it, by what the result says: it has the bytes, or they come, or there are none."""
        if "data" in described:
            data: bytes = described["data"]
            return data
        if described:
            self._begin()
            await self._done.wait()
        return b"".join(self._chunks)

    def _note_progress(self) -> None:
        if self._receiver.stream.received:
            self._begin()

    def _begin(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._group.start_soon(self._gather)

    async def _gather(self) -> None:
        try:
            async for chunk in self._receiver:
                self._chunks.append(chunk)
        except CallError as error:
            self.failed = error
        self._done.set()


def completed_of(value: Mapping[str, Any], stdout: bytes, stderr: bytes) -> Completed:
    outputs = {n: value.get(name, {}) for n, name in ((STDOUT, "stdout"), (STDERR, "stderr"))}
    return Completed(
        value["status"],
        value["signal"],
        stdout,
        stderr,
        value["duration"],
        dropped={n: one["dropped"] for n, one in outputs.items() if one.get("dropped")},
        gaps={n: [gap["at"] for gap in one["gaps"]] for n, one in outputs.items() if "gaps" in one},
    )
