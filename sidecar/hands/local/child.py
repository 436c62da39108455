"""A program that the body of a tool runs: started, read, killed and reaped in the tool's thread.

    with Child([rg, b"--json", pattern], directory=folder) as child:
        while data := child.read(stop, 65536):
            ...
        status = child.wait(stop)

`directory` is a descriptor (O_PATH is enough): the child begins in that folder and is given no
path, so it begins beneath the root whatever happens to names. At the end of the block it, and all
in its session, is killed if it still runs, and reaped. Its standard input is /dev/null; what it
says on standard error is kept, up to `ERROR_BYTES`.

Some programs can be made to wait for ever: who opens a FIFO that nobody writes to sleeps until
somebody does (fifo(7)). Who reads with `patience` is told of that by `Stuck`.

It is reaped by pid only, and `orphans`, which reaps children of this process that are no
programs, is told to leave it alone from before it starts until after it was reaped.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType

from sidecar.hands.local import orphans
from sidecar.hands.local.stop import Stop

ERROR_BYTES = 16 * 1024  # of its standard error; the rest is read and dropped
LOOK_AGAIN = 0.02  # seconds; where a kernel has no pidfds


class Stuck(Exception):
    """The child says nothing and does nothing: it sleeps, and was not woken once meanwhile."""


class Child:
    """Raises `OSError` if it cannot be started. Used by one thread."""

    def __init__(
        self,
        argv: Sequence[str | bytes],
        *,
        directory: int,
        environment: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """`environment`: all of it; None is ours without what begins with SIDECAR_."""
        if environment is None:
            environment = {k: v for k, v in os.environb.items() if not k.startswith(b"SIDECAR_")}
        self.status: int | None = None  # negative: the signal that ended it
        self.error = bytearray()
        with orphans.undisturbed():
            self._process = subprocess.Popen(
                argv,
                cwd=f"/proc/self/fd/{directory}",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
            orphans.spare(self._process.pid)
        assert self._process.stdout is not None and self._process.stderr is not None
        self.stdout = self._process.stdout.fileno()
        self._stderr = self._process.stderr.fileno()
        self._open = {self.stdout, self._stderr}
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.status is None:
            self.kill()
            self._reap()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self, stop: Stop, size: int, *, patience: float | None = None) -> bytes:
        """At most `size` bytes it printed, at least one; b"" at the end. Raises `Stopped`; with
        `patience`, of which it may be silent for twice as many seconds, also `Stuck`."""
        before = None
        while self.stdout in self._open:
            ready = stop.wait(sorted(self._open), timeout=patience)
            if not ready:
                now = _sleep_of(self.pid)
                if now is not None and now == before:
                    raise Stuck
                before = now
            if self._stderr in ready:
                self._keep_error()
            if self.stdout in ready:
                with suppress(BlockingIOError):
                    data = os.read(self.stdout, size)
                    if data:
                        return data
                    self._open.remove(self.stdout)
        return b""

    def wait(self, stop: Stop) -> int:
        """Its status once it has ended; negative for a signal. Raises `Stopped`."""
        while self._stderr in self._open:
            stop.wait([self._stderr])
            self._keep_error()
        while self.status is None:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                self._reap()
            else:
                self._wait_end(stop)
        return self.status

    def kill(self) -> None:
        """KILL to its session's first group, itself among it. It is there until it is reaped."""
        if self.status is None:
            os.killpg(self.pid, signal.SIGKILL)

    def _wait_end(self, stop: Stop) -> None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:  # no such call here, or no descriptor left
            stop.wait(timeout=LOOK_AGAIN)
            return
        try:
            stop.wait([pidfd])
        finally:
            os.close(pidfd)

    def _keep_error(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._stderr, 65536)
            self.error += data[: ERROR_BYTES - len(self.error)]
            if not data:
                self._open.remove(self._stderr)

    def _reap(self) -> None:
        # Waiting for the end first: others may not be kept waiting for their turn.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with orphans.undisturbed():
            self.status = self._process.wait()
            orphans.unspare(self.pid)
        orphans.look_again()


def _sleep_of(pid: int) -> bytes | None:
    """What the kernel says of a process of one thread that sleeps; None if it does not. Twice the
    same: it is one sleep, for how often it was woken is told, too (proc(5), /proc/pid/status)."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        said = status.read()
        if b"\nState:\tS" in said:
            return said
    return None
