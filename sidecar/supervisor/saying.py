"""The log, in the form that `sidecar run` has, on standard error.

It never waits. Programs of the agent may have the same standard error, fill its pipe and keep
it full; PID 1 would reap nobody while it waits for a reader. So a line goes out if it fits.
"""

from __future__ import annotations

import os
import select
import time

_PIPE_BUF = 4096  # bytes that poll(2) promises to fit into a pipe, and write(2) not to mix up


def say(level: str, message: str) -> None:
    """`time level name: message`, one line."""
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    text = f"{moment}.{int(now % 1 * 1000):03}Z {level} sidecar.supervisor: {message}"
    line = text.encode(errors="backslashreplace").replace(b"\n", b" ")
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if poll.poll(0):
        try:
            os.write(2, line[: _PIPE_BUF - 1] + b"\n")
        except OSError:  # nobody reads it any more
            return
