"""Work that takes long: each tool in a thread of its own, with a pipe to core.

A tool is a function, its *body*, loaded when it is asked for the first time:

    def body(
        roots: Roots, path: Path, options: Mapping[str, Any], fd: int, stop: Stop
    ) -> dict[str, Any]: ...

It may block on files, and is the only one that does: its thread is none of the workers that
short calls share. It reads or writes `fd`, its end of the pipe (non-blocking), by `stop.read` and
`stop.write`, and asks `stop.check()` once per entry or so, which raise `Stopped` when it shall
end; it lets that go through. `fd` is closed for it when it returns. What it returns is its
result: plain values (None, bool, int, float, str, bytes, lists, maps with text as keys), at most
`OUTCOME_BYTES` as CBOR. It raises `CallError` for what its caller should know, or `OSError`,
which becomes one about `path`. A child program goes by `child.Child`.

Nothing can end a thread that hangs in a system call (a dead network file system): after
`STOP_TIME` it is told in the log and waited for no longer. Its place stays taken till it ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import anyio

from sidecar.errors import CallError, Code, Started, from_os_error
from sidecar.hands.fileinterface import CORE_WRITES, Path, ToolName
from sidecar.hands.local.ends import PIPE_SIZE
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop, Stopped

log = logging.getLogger(__name__)

MAX_TOOLS = 32  # at once; one more is `limit`
STOP_TIME = 5.0  # seconds for a tool to end when it was told to
OUTCOME_BYTES = 256 * 1024  # of a result, encoded

Body = Callable[[Roots, Path, Mapping[str, Any], int, Stop], dict[str, Any]]

TOOLS: dict[ToolName, str] = {  # where the body is: "module:function"
    ToolName.ARCHIVE: "sidecar.hands.local.tar.archiving:archive",
    ToolName.EXTRACT: "sidecar.hands.local.tar.extracting:extract",
    ToolName.SEARCH: "sidecar.hands.local.search.searching:search",
    ToolName.WATCH: "sidecar.hands.local.watch.watching:watch",
    ToolName.COPY: "sidecar.hands.local.copying:copy",
}


@dataclass(frozen=True, slots=True)
class Work:
    """What a tool is to do."""

    name: ToolName
    path: Path
    options: Mapping[str, Any]


class LocalTool:
    """See `fileinterface.Tool`. Made by `Toolbox.begin`."""

    def __init__(self, work: Work, fd: int, stop: Stop) -> None:
        self.fd = fd
        self.ended = anyio.Event()
        self._work = work
        self._stop = stop
        self._value: dict[str, Any] = {}
        self._error: CallError | None = None

    def take_fd(self) -> int:
        """See `Tool`."""
        fd, self.fd = self.fd, -1
        return fd

    def close_fd(self) -> None:
        if self.fd >= 0:
            os.close(self.take_fd())

    async def result(self) -> dict[str, Any]:
        await self.ended.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def stop(self) -> None:
        """Ask it to end. Waits for nothing."""
        self._stop.request()
        self.close_fd()

    async def aclose(self) -> None:
        self.stop()
        with anyio.move_on_after(STOP_TIME, shield=True):
            await self.ended.wait()
        if not self.ended.is_set():
            log.warning("the tool %s did not end within %g s", self._work.name, STOP_TIME)

    def settle(self, value: dict[str, Any], error: CallError | None) -> None:
        """On the event loop, once."""
        self._value, self._error = value, error
        self.ended.set()


class Toolbox:
    """The tools of one hands."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._running: set[LocalTool] = set()

    def begin(self, work: Work) -> LocalTool:
        """Start a tool. Does not wait; what is wrong with `work` its result will say."""
        where = TOOLS.get(work.name)
        if where is None:
            raise CallError(Code.UNSUPPORTED, f"this hands has no tool {work.name}")
        if len(self._running) >= MAX_TOOLS:
            raise CallError(Code.LIMIT, f"more than {MAX_TOOLS} tools at once", limit=MAX_TOOLS)
        ours, cores = _open_pipe(core_writes=work.name in CORE_WRITES)
        stop = Stop()
        tool = LocalTool(work, cores, stop)
        loop = asyncio.get_running_loop()

        def settle(value: dict[str, Any], error: CallError | None) -> None:
            self._running.discard(tool)
            tool.settle(value, error)

        def run() -> None:
            try:
                outcome = _perform(where, self._roots, work, ours, stop)
            finally:
                os.close(ours)
                stop.close()
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody asks
                loop.call_soon_threadsafe(settle, *outcome)

        self._running.add(tool)
        try:
            threading.Thread(target=run, name=f"tool {work.name}", daemon=True).start()
        except RuntimeError as error:  # no more threads to be had
            self._running.discard(tool)
            os.close(ours)
            stop.close()
            tool.close_fd()
            raise CallError(Code.LIMIT, f"no thread for a tool: {error}") from None
        return tool

    async def aclose(self) -> None:
        """End them all, and wait for them together: `STOP_TIME` at most."""
        running = list(self._running)
        for tool in running:
            tool.stop()
        async with anyio.create_task_group() as group:
            for tool in running:
                group.start_soon(tool.aclose)


def _perform(
    where: str, roots: Roots, work: Work, fd: int, stop: Stop
) -> tuple[dict[str, Any], CallError | None]:
    """What became of it: a result, or an error."""
    try:
        return _load(where)(roots, work.path, work.options, fd, stop), None
    except CallError as error:
        return {}, error
    except OSError as error:
        return {}, from_os_error(error, work.path, started=Started.YES)
    except Stopped:
        return {}, CallError(Code.CANCELLED, f"{work.name} was stopped", started=Started.YES)
    except Exception:
        log.exception("the tool %s failed inside", work.name)
        message = "a defect of hands; its log says more"
        return {}, CallError(Code.INTERNAL, message, started=Started.YES)


def _load(where: str) -> Body:
    module, _, function = where.partition(":")
    body: Body = getattr(import_module(module), function)
    return body


def _open_pipe(*, core_writes: bool) -> tuple[int, int]:
    """Our end and core's."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with suppress(OSError):  # EPERM: the user's pages for pipes are used up (pipe(7))
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return (reader, writer) if core_writes else (writer, reader)
