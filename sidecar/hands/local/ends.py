"""Both ends of what a child reads and writes: pipes or a terminal, and perhaps a control socket."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field

from sidecar.hands.local.terminal import open_terminal

PIPE_SIZE = 1 << 20  # bytes; lets core read late and in large pieces without slowing the program


@dataclass(slots=True)
class Ends:
    """Ours are named, close-on-exec, and non-blocking from `tune` on. `files` are the child's, by
    number; what of them is a descriptor of ours is closed by `close_theirs`, others are paths.

    Methods that open something raise `OSError` or `CallError`; `close` then closes the rest.
    """

    files: list[int | bytes] = field(default_factory=list)
    stdin: int | None = None
    stdout: int = -1
    stderr: int | None = None
    control: int | None = None
    master: int | None = None

    def open_pipes(self, *, with_stdin: bool) -> None:
        if with_stdin:
            theirs, self.stdin = os.pipe2(os.O_CLOEXEC)
            self.files.append(theirs)
        else:
            self.files.append(b"/dev/null")
        self.stdout, theirs = os.pipe2(os.O_CLOEXEC)
        self.files.append(theirs)
        self.stderr, theirs = os.pipe2(os.O_CLOEXEC)
        self.files.append(theirs)

    def open_terminal(self, rows: int, cols: int, *, plain: bool) -> None:
        """`stdin`, `stdout` and `master` are three descriptors of its master side."""
        self.master, path = open_terminal(rows, cols, plain=plain)
        self.stdin = os.dup(self.master)
        self.stdout = os.dup(self.master)
        self.files += [path] * 3

    def open_control(self) -> None:
        """After the others: it is descriptor 3."""
        ours, theirs = socket.socketpair()
        self.control = ours.detach()
        self.files.append(theirs.detach())

    def tune(self) -> None:
        """After the start, so that it costs no time while the program is being loaded."""
        for descriptor in self._ours():
            os.set_blocking(descriptor, False)
        if self.master is not None:
            return
        for reader in (self.stdout, self.stderr):
            with suppress(OSError):  # EPERM: the user's pages for pipes are used up (pipe(7))
                if reader is not None:
                    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def close_theirs(self) -> None:
        for file in self.files:
            if isinstance(file, int):
                os.close(file)
        self.files.clear()

    def close(self) -> None:
        self.close_theirs()
        for descriptor in self._ours():
            os.close(descriptor)

    def _ours(self) -> list[int]:
        named = (self.stdin, self.stdout, self.stderr, self.control, self.master)
        return [descriptor for descriptor in named if descriptor is not None and descriptor >= 0]
