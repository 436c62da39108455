"""Two links on a socket pair, and one link with a peer that keeps no rules."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from sidecar.hands.apart import link as module
from sidecar.hands.apart.link import Link, peer_of
from sidecar.hands.apart.wire import MAX_DESCRIPTORS, Cancel, Message, Reply, encode


class End:
    """One end, and what came there."""

    def __init__(self, sock: socket.socket, *, limit: int = 100_000) -> None:
        self.messages: list[Message] = []
        self.contents: list[bytes] = []
        self.why = ""
        self.link = Link(sock, limit=limit, on_message=self._receive, on_end=self._end)
        self.link.listen()

    def _receive(self, message: Message, descriptors: list[int]) -> None:
        self.messages.append(message)
        for descriptor in descriptors:
            assert not os.get_inheritable(descriptor)
            self.contents.append(os.pread(descriptor, 100, 0))
            os.close(descriptor)

    def _end(self, why: str) -> None:
        assert not self.why, "it ends once"
        self.why = why

    async def until(self, count: int) -> None:
        with anyio.fail_after(5):
            while len(self.messages) < count and not self.why:  # noqa: ASYNC110
                await anyio.sleep(0.001)

    async def until_over(self) -> str:
        with anyio.fail_after(5):
            while not self.why:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        return self.why


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    yield left, right
    left.close()
    right.close()


@pytest.fixture
async def ends(sockets: tuple[socket.socket, socket.socket]) -> AsyncIterator[tuple[End, End]]:
    left, right = End(sockets[0]), End(sockets[1])
    yield left, right
    left.link.end("over")
    right.link.end("over")


@pytest.fixture
async def end(sockets: tuple[socket.socket, socket.socket]) -> AsyncIterator[End]:
    """The other side is `sockets[1]`, bare."""
    end = End(sockets[0])
    yield end
    end.link.end("over")


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("file")
    os.write(fd, b"content")
    yield fd
    os.close(fd)


async def test_messages_arrive_in_order_with_their_descriptors(
    ends: tuple[End, End], file: int
) -> None:
    left, right = ends
    left.link.send(Reply(1, "one"), [file])
    left.link.send(Cancel(2))
    left.link.send(Reply(3, "three"), [file, file])
    await right.until(3)
    assert right.messages == [Reply(1, "one"), Cancel(2), Reply(3, "three")]
    assert right.contents == [b"content"] * 3


async def test_what_the_socket_does_not_take_waits_and_keeps_its_descriptors(
    ends: tuple[End, End],
) -> None:
    left, right = ends
    for number in range(60):
        fd = os.memfd_create("file")
        os.write(fd, b"%d" % number)
        left.link.send(Reply(number, b"x" * 50_000), [fd])
        os.close(fd)
    await right.until(60)
    assert [message.id for message in right.messages] == list(range(60))  # type: ignore[union-attr]
    assert right.contents == [b"%d" % number for number in range(60)]


async def test_descriptors_that_wait_are_closed_with_the_link(end: End, file: int) -> None:
    for number in range(60):
        end.link.send(Reply(number, b"x" * 50_000), [file])
    end.link.end("enough")
    assert end.why == "enough"
    end.link.send(Cancel(1))  # nobody hears it


async def test_a_peer_that_does_not_read_is_given_up(
    end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 1_000_000)
    for number in range(100):
        end.link.send(Reply(number, b"x" * 50_000))
    assert end.why == "the other side does not read"


async def test_a_peer_that_hangs_up_is_noticed(
    end: End, sockets: tuple[socket.socket, socket.socket]
) -> None:
    sockets[1].close()
    assert await end.until_over() == "the other side closed it"


async def test_a_write_to_nobody_ends_it(
    end: End, sockets: tuple[socket.socket, socket.socket]
) -> None:
    sockets[1].close()
    end.link.send(Cancel(1))
    assert end.why == "sending failed: Broken pipe"


@pytest.mark.parametrize(
    "garbage, words",
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a frame of 1195725856 bytes, 1 to 100000 expected"),
        (b"\0\0\0\x03\xff\xff\xff", "broken CBOR"),
    ],
)
async def test_garbage_ends_it(
    end: End, sockets: tuple[socket.socket, socket.socket], garbage: bytes, words: str
) -> None:
    sockets[1].sendall(garbage)
    assert words in await end.until_over()


def send_with(sock: socket.socket, data: bytes, descriptors: list[int]) -> None:
    rights = array.array("i", descriptors)
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


async def test_more_descriptors_than_there_is_room_for_end_it(
    end: End, sockets: tuple[socket.socket, socket.socket], file: int
) -> None:
    send_with(sockets[1], encode(Cancel(1)), [file] * (MAX_DESCRIPTORS + 4))
    assert "descriptors were lost" in await end.until_over()
    assert end.messages == []


async def test_descriptors_that_no_message_takes_are_closed(
    end: End, sockets: tuple[socket.socket, socket.socket], file: int
) -> None:
    send_with(sockets[1], encode(Cancel(1)), [file, file])
    assert "2 descriptors that belong to no message" in await end.until_over()


async def test_descriptors_of_half_a_message_are_closed(
    end: End, sockets: tuple[socket.socket, socket.socket], file: int
) -> None:
    send_with(sockets[1], encode(Reply(1, None), 1)[:5], [file])
    sockets[1].close()
    assert await end.until_over() == "the other side closed it"


async def test_after_a_message_that_ends_it_none_is_handed_on(
    end: End, sockets: tuple[socket.socket, socket.socket], file: int
) -> None:
    receive = end.link._on_message

    def end_at_first(message: Message, descriptors: list[int]) -> None:
        receive(message, descriptors)
        end.link.end("that will do")

    end.link._on_message = end_at_first
    send_with(sockets[1], encode(Cancel(1)) + encode(Reply(2, None), 1), [file])
    assert await end.until_over() == "that will do"
    assert end.messages == [Cancel(1)]


async def test_it_does_not_block_when_the_peer_makes_its_own_end_block(
    end: End, sockets: tuple[socket.socket, socket.socket]
) -> None:
    sockets[1].setblocking(True)
    sockets[1].sendall(encode(Cancel(1))[:3])
    await anyio.sleep(0.01)
    sockets[1].sendall(encode(Cancel(1))[3:])
    await end.until(1)
    assert end.messages == [Cancel(1)]


def test_the_kernel_says_who_is_there(sockets: tuple[socket.socket, socket.socket]) -> None:
    assert peer_of(sockets[0]) == (os.getpid(), os.getuid())
