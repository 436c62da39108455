"""The log goes on when nobody reads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

SAYS = "from sidecar.supervisor.saying import say; say('info', {!r})"


def said(message: str, stderr: int = subprocess.PIPE) -> bytes:
    done = subprocess.run([sys.executable, "-c", SAYS.format(message)], stderr=stderr, timeout=10)
    assert done.returncode == 0
    return done.stderr or b""


def test_a_line_is_as_in_the_log_of_run() -> None:
    line = said("hands is process 9")
    assert re.fullmatch(
        rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info sidecar\.supervisor: hands is process 9\n",
        line,
    )


def test_a_message_stays_one_line_and_does_not_grow() -> None:
    assert said("a\nb").endswith(b": a b\n")
    assert said("\udcff").endswith(b": \\udcff\n")
    assert len(said("x" * 10_000)) == 4096


def test_a_pipe_that_is_full_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        said("lost", writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_pipe_that_nobody_reads_does_not_end_us() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    said("lost", writer)
    os.close(writer)
