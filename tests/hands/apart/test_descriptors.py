from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sidecar.errors import ProtocolError
from sidecar.hands.apart import descriptors as module
from sidecar.hands.apart.descriptors import (
    are_many_waiting,
    check_end,
    check_file,
    check_pipe,
    check_socket,
    discard,
)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[dict[str, int]]:
    """One of each kind, by name."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    with ExitStack() as stack:
        left, right = (stack.enter_context(s) for s in socket.socketpair())
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        reading, writing = os.pipe()
        made = {
            "file": os.open(tmp_path / "file", os.O_RDONLY),
            "both": os.open(tmp_path / "file", os.O_RDWR),
            "write-only": os.open(tmp_path / "file", os.O_WRONLY),
            "end": os.open(tmp_path / "file", os.O_WRONLY | os.O_APPEND),
            "path": os.open(tmp_path / "file", os.O_PATH),
            "folder": os.open(tmp_path, os.O_RDONLY),
            "device": os.open("/dev/zero", os.O_RDWR),
            "fifo": os.open(tmp_path / "fifo", os.O_RDWR),
            "reading": reading,
            "writing": writing,
        }
        for fd in made.values():
            stack.callback(os.close, fd)
        yield {**made, "socket": left.fileno(), "peer": right.fileno(), "udp": udp.fileno()}


CHECKS: list[tuple[str, Callable[[int], None], set[str]]] = [
    ("a file", check_file, {"file", "both"}),
    ("a file to write", lambda fd: check_file(fd, writable=True), {"both"}),
    ("the end of a file", check_end, {"end"}),
    ("a pipe to read", lambda fd: check_pipe(fd, writable=False), {"reading"}),
    ("a pipe to write", lambda fd: check_pipe(fd, writable=True), {"writing"}),
    ("a socket", check_socket, {"socket", "peer"}),
]


@pytest.mark.parametrize("check, right", [pytest.param(c, r, id=n) for n, c, r in CHECKS])
def test_only_the_right_kind_passes(
    check: Callable[[int], None], right: set[str], made: dict[str, int]
) -> None:
    passed = set()
    for name, fd in made.items():
        try:
            check(fd)
        except ProtocolError:
            continue
        passed.add(name)
    assert passed == right


def test_what_is_discarded_is_closed_even_if_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_go_on, closed = threading.Event(), threading.Semaphore(0)

    def slowly(fd: int) -> None:
        may_go_on.wait(5)
        close(fd)
        closed.release()

    close = os.close
    monkeypatch.setattr(os, "close", slowly)
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    discard([os.memfd_create("x") for _ in range(4)])
    assert are_many_waiting()
    may_go_on.set()
    assert all(closed.acquire(timeout=5) for _ in range(4))
    assert not are_many_waiting()
    discard([])


def test_a_close_that_fails_does_not_keep_the_next_ones_open() -> None:
    reading, writing = os.pipe()
    never_open = os.dup(reading)
    os.close(never_open)
    discard([never_open + 1000])
    discard([reading])
    with pytest.raises(BrokenPipeError):
        for _ in range(500):
            os.write(writing, b"x")
            time.sleep(0.01)
    os.close(writing)
