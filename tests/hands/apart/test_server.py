"""Who may be core, what becomes of the core before, and of one that makes no sense."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from servedhands import reach, serve, serve_with

from sidecar.errors import CallError, Code
from sidecar.hands.apart import server as module
from sidecar.hands.apart import wire
from sidecar.hands.apart.remote import SocketHands
from sidecar.hands.apart.server import Server
from sidecar.hands.interface import Program
from sidecar.hands.local.hands import LocalHands


class Peer:
    """A core by hand, byte for byte."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self._inbox = wire.Inbox(limit=wire.MAX_REPLY)

    def send(self, *messages: wire.Message) -> None:
        self.socket.sendall(b"".join(map(wire.encode, messages)))

    async def receive(self) -> wire.Message | None:
        """The next message; None when hands has hung up."""
        with anyio.fail_after(5):
            while True:
                for message, descriptors in self._inbox.messages():
                    for descriptor in descriptors:
                        os.close(descriptor)
                    return message
                await anyio.wait_readable(self.socket)
                data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 16)
                if not data:
                    return None
                self._inbox.receive(data, descriptors)

    async def greet(self) -> None:
        self.send(wire.Hello(wire.VERSION, {}))
        assert isinstance(await self.receive(), wire.Hello)


@pytest.fixture
async def served(local: LocalHands, socket_path: Path) -> AsyncIterator[Path]:
    async with serve(local, socket_path):
        yield socket_path


@pytest.fixture
async def peer(served: Path) -> AsyncIterator[Peer]:
    peer = Peer(served)
    yield peer
    peer.socket.close()


async def test_hello_says_who_hands_is(peer: Peer) -> None:
    peer.send(wire.Hello(wire.VERSION, {}))
    hello = await peer.receive()
    assert isinstance(hello, wire.Hello)
    assert (hello.version, hello.facts["pid"], hello.facts["uid"]) == (1, os.getpid(), os.getuid())
    assert len(hello.facts["incarnation"]) == 16
    assert {"openat2", "pidfd", "pty", "landlock"} < set(hello.facts["capabilities"])


async def test_a_request_gets_one_answer(peer: Peer, root: Path) -> None:
    await peer.greet()
    peer.send(wire.Request(5, "remove", {"path": "nothing", "recursive": False}))
    failure = await peer.receive()
    assert isinstance(failure, wire.Failure)
    assert (failure.id, failure.error["code"], failure.error["started"]) == (5, "not_found", "no")


async def test_what_hands_does_not_know_is_unsupported(peer: Peer) -> None:
    await peer.greet()
    peer.send(wire.Request(5, "fly", {}))
    failure = await peer.receive()
    assert isinstance(failure, wire.Failure)
    assert failure.error["message"] == "this hands knows no 'fly'"


async def test_a_cancelled_request_is_answered_too(peer: Peer) -> None:
    await peer.greet()
    spawn = {"program": {"argv": ["cat"], "stdin": True}, "key": b"k"}
    peer.send(wire.Request(5, "spawn", spawn))
    reply = await peer.receive()
    assert isinstance(reply, wire.Reply)
    assert reply.value[2] == ["stdin", "stdout", "stderr"]
    peer.send(wire.Request(6, "wait", {"key": b"k"}), wire.Cancel(6), wire.Cancel(99))
    failure = await peer.receive()
    assert isinstance(failure, wire.Failure)
    assert (failure.id, failure.error["code"]) == (6, "cancelled")


async def test_the_end_of_a_program_may_be_waited_for_from_its_start(peer: Peer) -> None:
    await peer.greet()
    for number, program in ((5, {"argv": ["true"]}), (7, {"argv": ["no-such-program"]})):
        arguments = {"program": program, "key": b"%d" % number, "wait": number + 1}
        peer.send(wire.Request(number, "spawn", arguments))
    answers = {}
    for _ in range(4):
        message = await peer.receive()
        assert isinstance(message, wire.Reply | wire.Failure)
        answers[message.id] = message
    assert isinstance(answers[6], wire.Reply)
    assert answers[6].value[:2] == [0, None]
    assert isinstance(answers[7], wire.Failure)
    assert isinstance(answers[8], wire.Failure)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([wire.Reply(1, None)], id="an answer"),
        pytest.param([wire.Request(5, "stat", {"path": "x"})], id="an argument is missing"),
        pytest.param(
            [wire.Request(5, "spawn", {"program": {"env": [[1, 2]]}, "key": b"k"})],
            id="a program that is none",
        ),
        pytest.param(
            [wire.Request(5, "wait", {"key": b"k"}), wire.Request(5, "ping", {})], id="an id twice"
        ),
        pytest.param([wire.Request(5, "ping", {"wait": 6})], id="a wait for nothing"),
        pytest.param(
            [wire.Request(5, "spawn", {"program": {"argv": ["x"]}, "key": b"k", "wait": []})],
            id="a wait under no id",
        ),
    ],
)
async def test_what_makes_no_sense_ends_the_connection_and_nothing_else(
    peer: Peer, served: Path, messages: list[wire.Message], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar.hands")
    await peer.greet()
    peer.send(*messages)
    while await peer.receive():
        continue
    async with SocketHands.open_socket(str(served)) as hands:
        await hands.stat(".")
    [line] = [line for line in caplog.messages if "broke the protocol" in line]
    assert line.startswith(f"core disconnected: process {os.getpid()} of uid {os.getuid()}: ")


async def test_a_second_core_is_told_so_until_the_first_is_gone(
    peer: Peer, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_TIME", 0.05)
    await peer.greet()
    why = f"it serves another core, process {os.getpid()} of uid {os.getuid()}, until that is gone"
    second = Peer(served)
    second.send(wire.Hello(wire.VERSION, {}))
    failure = await second.receive()
    assert isinstance(failure, wire.Failure)
    assert (failure.id, failure.error["message"]) == (0, why)
    assert await second.receive() is None
    second.socket.close()
    async with SocketHands.open_socket(str(served)) as hands:
        with anyio.fail_after(5):
            while hands.status().get("why") != why:  # noqa: ASYNC110 - a status rings no bell
                await anyio.sleep(0.01)
        peer.send(wire.Request(5, "ping", {}))
        assert await peer.receive() == wire.Reply(5, None)
        peer.socket.close()
        await hands.stat(".")


async def test_a_core_that_dials_again_is_let_in_before_its_old_connection_is_missed(
    peer: Peer, served: Path
) -> None:
    await peer.greet()
    again = Peer(served)
    again.send(wire.Hello(wire.VERSION, {}))
    await anyio.sleep(0.05)
    peer.socket.close()
    assert isinstance(await again.receive(), wire.Hello)
    again.socket.close()


async def test_who_only_looks_takes_nobodys_place(peer: Peer, served: Path) -> None:
    await peer.greet()
    Peer(served).socket.close()
    peer.send(wire.Request(5, "ping", {}))
    assert await peer.receive() == wire.Reply(5, None)


async def test_who_says_nothing_is_sent_away(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELLO_TIME", 0.02)
    silent = Peer(served)
    assert await silent.receive() is None
    silent.socket.close()


async def test_another_version_is_told_so(served: Path) -> None:
    other = Peer(served)
    other.send(wire.Hello(9, {}))
    failure = await other.receive()
    assert isinstance(failure, wire.Failure)
    assert failure.error["message"] == (
        "it speaks version 9, this hands 1: use the same release on both sides"
    )
    assert await other.receive() is None
    other.socket.close()


async def test_who_may_not_be_core_is_refused(
    local: LocalHands, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(local, core_uids=[4321])
    server._uids.discard(0)  # else the tests, as root, may be core everywhere
    async with serve_with(server, socket_path):
        stranger = Peer(socket_path)
        assert await stranger.receive() is None
        stranger.socket.close()
    assert caplog.messages == [
        f"refused process {os.getpid()} of uid {os.getuid()}: it may not be core here"
    ]


async def test_a_crowd_of_strangers_stops_nobody_and_fills_no_log(
    local: LocalHands, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(local, core_uids=[4321])
    server._uids.discard(0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with serve_with(server, socket_path), anyio.create_task_group() as group:
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(50)]
        for stranger in crowd:
            stranger.connect(str(socket_path))
        group.start_soon(count)
        await anyio.wait_readable(crowd[-1])  # hung up
        group.cancel_scope.cancel()
        for stranger in crowd:
            stranger.close()
    assert turns >= len(crowd), "accepted one after the other, and each time others had a turn"
    assert len(caplog.messages) == 1


async def test_too_many_requests_are_a_limit(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REQUESTS", 1)
    await peer.greet()
    spawn = {"program": {"argv": ["cat"], "stdin": True}, "key": b"k", "wait": 9}
    peer.send(wire.Request(5, "spawn", spawn))
    await peer.receive()
    peer.send(wire.Request(6, "ping", {}))
    failure = await peer.receive()
    assert isinstance(failure, wire.Failure)
    assert (failure.id, failure.error["code"]) == (6, "limit")


async def test_a_defect_ends_one_answer(
    local: LocalHands, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise RuntimeError("a test")

    monkeypatch.setattr(local, "known", broken)
    async with SocketHands.open_socket(str(served)) as hands:
        with pytest.raises(CallError) as caught:
            await hands.known()
        assert caught.value.code == Code.INTERNAL
        await hands.stat(".")


async def test_copies_of_what_hands_has_forgotten_are_closed(
    local: LocalHands, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.hands.local.programs.MAX_ENDED", 2)
    monkeypatch.setattr("sidecar.hands.apart.keeper.PRUNE", 1)
    async with reach(local, socket_path) as hands:
        for number in range(6):
            running = await hands.spawn(Program(argv=["true"]), key=b"%d" % number)
            os.close(running.stdout)
            os.close(running.stderr or 0)
            await hands.wait(b"%d" % number)
        with pytest.raises(CallError) as caught:
            await hands.take(b"0")
        assert caught.value.code == Code.NOT_FOUND
        again = await hands.take(b"5")
        os.close(again.stdout)
        os.close(again.stderr or 0)
