"""The look at listening sockets, with real ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sidecar.cli.demo import sockets
from sidecar.cli.demo.sockets import listeners_of, listening_sockets

LISTENING = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
input()
"""


@contextmanager
def listening_child() -> Iterator[tuple[int, int]]:
    """Process id and port of a program that listens."""
    command = [sys.executable, "-c", LISTENING]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        yield child.pid, int(child.stdout.readline())
        child.kill()


def test_a_listening_socket_is_found_with_its_port() -> None:
    assert listeners_of(os.getpid()) == []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        [found] = listeners_of(os.getpid())
        assert str(found) == f"tcp port {listener.getsockname()[1]}"
        assert found.uid == os.getuid()


def test_a_socket_that_waits_for_datagrams_is_found() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
        waiting.bind(("127.0.0.1", 0))
        assert [found.table for found in listeners_of(os.getpid())] == ["udp"]


def test_a_connected_socket_is_none() -> None:
    with listening_child() as (_, port), socket.create_connection(("127.0.0.1", port)):
        assert listeners_of(os.getpid()) == []


def test_a_process_is_not_blamed_for_the_sockets_of_another() -> None:
    with listening_child() as (pid, port):
        assert [found.port for found in listeners_of(pid)] == [port]
        assert listeners_of(os.getpid()) == []


def test_who_may_not_look_goes_by_elimination(monkeypatch: pytest.MonkeyPatch) -> None:
    look = sockets._sockets_of
    earlier = listening_sockets()
    with listening_child() as (pid, port), socket.create_server(("127.0.0.1", 0)):

        def refuse(asked: int) -> set[int]:
            if asked == pid:
                raise PermissionError
            return look(asked)

        monkeypatch.setattr(sockets, "_sockets_of", refuse)
        assert [found.port for found in listeners_of(pid, earlier)] == [port]
