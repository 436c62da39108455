"""A shell session: commands one after the other, in a shell that remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import anyio

from sidecar.client.pending import PendingCall
from sidecar.client.processes import RemoteProcess
from sidecar.client.program import Limits, Path, Terminal, plain_options
from sidecar.errors import CallError, Code
from sidecar.protocol.streams import STDOUT

if TYPE_CHECKING:
    from sidecar.client.run import Run

CLOSE_GRACE = 2.0  # seconds that what a shell leaves running has to end
CLOSE_TIME = 10.0  # seconds that closing may take, also while being cancelled


class ShellOptions(TypedDict, total=False):
    """Each is optional."""

    cwd: Path | None  # default: the workspace
    env: Mapping[str, str] | None  # set on top of the base
    unset: Sequence[str]  # names taken out of the base
    base: Literal["default", "clean", "empty"]
    terminal: Terminal | None
    limits: Limits | None


@dataclass(frozen=True, slots=True)
class ShellResult:
    """What became of one command.

    With `ended` the shell is gone, and `status` or `signal` is how it went. Else `status` is what
    `$?` was afterwards, and `cwd` where the shell is now.
    """

    status: int | None
    signal: int | None
    cwd: str | bytes | None
    output: bytes
    offset: int  # of the output within that of the session
    dropped: int  # bytes of it that were not kept
    duration: float  # seconds
    ended: bool

    @property
    def ok(self) -> bool:
        return self.status == 0


class ShellSession:
    """Made by `Run.shell`. `process` is its handle, for input, signals and a new size."""

    def __init__(self, run: Run, process: RemoteProcess) -> None:
        self.process = process
        self._run = run

    async def run(
        self,
        command: str,
        *,
        timeout: float | None = None,
        grace: float = 5.0,
        on_output: Callable[[bytes], object] | None = None,
    ) -> ShellResult:
        """Run one command line, or several, and wait for it. `on_output` gets the output as it
        comes; all of it is in the result in any case.

        Raises `CallError`: `timeout` (the partial result in `details["result"]`), `conflict`
        while another command runs or after the shell has ended, ... Cancelling this ends the
        command and leaves the shell.
        """
        arguments: dict[str, Any] = {"exec": self.process.id, "command": command, "grace": grace}
        arguments |= {"live": on_output is not None}
        if timeout is not None:
            arguments["timeout"] = float(timeout)
        async with self._run.open("shell.run", arguments) as call:
            return await _collect(call, on_output)

    async def close(self) -> None:
        """End the shell and all that it left running. Harmless when repeated."""
        with suppress(CallError):  # it has ended, and was perhaps forgotten
            await self.process.kill(grace=CLOSE_GRACE)


async def start_shell(run: Run, options: ShellOptions) -> ShellSession:
    answer = await run.call("shell.start", plain_options(options))
    return ShellSession(run, RemoteProcess(run, answer["exec"], answer["pid"]))


async def _collect(call: PendingCall, on_output: Callable[[bytes], object] | None) -> ShellResult:
    """The result, and the output, which comes with it or before it."""
    chunks: list[bytes] = []
    receiver = call.receiver(STDOUT)
    failed: CallError | None = None

    async def gather() -> None:
        nonlocal failed
        try:
            async for chunk in receiver:
                chunks.append(chunk)
                if on_output is not None:
                    on_output(chunk)
        except CallError as error:
            failed = error
        done.set()

    done = anyio.Event()
    value: Mapping[str, Any] = {}
    refused: CallError | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(gather)
        try:
            value = await call.wait()
        except CallError as error:
            refused, value = error, error.details
        if value.get("stdout", {}).get("streamed"):
            await done.wait()
        group.cancel_scope.cancel()
    if refused is not None and refused.code is not Code.TIMEOUT:
        raise refused
    result = _result_of(value, b"".join(chunks))
    if refused is not None:
        refused.details["result"] = result
        raise refused
    if failed is not None:
        raise failed
    return result


def _result_of(value: Mapping[str, Any], streamed: bytes) -> ShellResult:
    stdout = value["stdout"]
    return ShellResult(
        status=value["status"],
        signal=value["signal"],
        cwd=value["cwd"],
        output=stdout.get("data", streamed),
        offset=stdout["offset"],
        dropped=stdout["dropped"],
        duration=value["duration"],
        ended=value["shell"] == "ended",
    )
