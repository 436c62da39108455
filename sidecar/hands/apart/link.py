"""One connection between core and hands: messages and descriptors, without ever blocking.

Twin of `wire`, which does no I/O. Messages are handed on from the callback of the event loop
that read them, because each queue between two tasks costs as long as the system call.

The two ends have open file descriptions of their own, so that the other side cannot make ours
block (it could with a pipe: `hands.pipeio`). A received descriptor is close-on-exec from the
start (MSG_CMSG_CLOEXEC, recvmsg(2)) and has an owner at every moment: the inbox, whoever takes
the message, or at last `descriptors.discard`.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from sidecar.errors import ProtocolError
from sidecar.hands.apart.descriptors import discard
from sidecar.hands.apart.wire import MAX_DESCRIPTORS, Inbox, Message, encode

READ_SIZE = 64 * 1024
MAX_QUEUED = 32 * 1024 * 1024  # bytes that wait for a reader; beyond, the connection is over

CLOSED = "the other side closed it"

_ROOM = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
_RECEIVE = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
_SEND = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_TRUNCATED = int(socket.MSG_CTRUNC)  # as a flag of `enum` it would take 3 us to test


class Link:
    """Owns `sock`. `on_message` gets each message with its descriptors, which it owns then; it
    may raise `ProtocolError`. `on_end` is called once, with the reason in words."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        limit: int,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._inbox = Inbox(limit=limit)
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[memoryview, list[int]]] = deque()
        self._queued = 0
        self._is_writing = False
        self.is_over = False

    def listen(self) -> None:
        """Messages come from here on."""
        self._loop.add_reader(self._socket, self._on_readable)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send, or queue. The descriptors stay the caller's, who may close them at once.

        After the end it does nothing. Raises `ValueError` for text that UTF-8 has not.
        """
        self.send_frame(encode(message, len(descriptors)), descriptors)

    def send_frame(self, frame: bytes, descriptors: Sequence[int] = ()) -> None:
        """`send` for a message that was encoded already."""
        if self.is_over:
            return
        view = memoryview(frame)
        if not self._queue:
            try:
                view = view[self._send_once(view, descriptors) :]
            except OSError as error:
                self.end(f"sending failed: {error.strerror}")
                return
            if not view:
                return
            if len(view) < len(frame):
                descriptors = ()  # they went with the first byte
        self._enqueue(view, descriptors)

    def end(self, why: str) -> None:
        """Close it. Only the first call does anything."""
        if self.is_over:
            return
        self.is_over = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        discard(self._inbox.leftovers())
        for _, descriptors in self._queue:
            _close(descriptors)
        self._queue.clear()
        self._on_end(why)

    # Receiving ----------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(READ_SIZE, _ROOM, _RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.end(f"receiving failed: {error.strerror}")
            return
        self._inbox.receive(data, _descriptors_in(ancillary))
        if flags & _TRUNCATED:
            # The kernel closed what had no room here, or in our table of descriptors.
            self.end(f"descriptors were lost: more than {MAX_DESCRIPTORS} came, or we have no room")
        elif not data:
            self.end(CLOSED)
        else:
            self._hand_on()

    def _hand_on(self) -> None:
        try:
            for message, descriptors in self._inbox.messages():
                if self.is_over:
                    discard(descriptors)
                    return
                self._on_message(message, descriptors)
        except ProtocolError as error:
            self.end(f"the other side broke the protocol: {error}")

    # Sending ------------------------------------------------------------------------------

    def _enqueue(self, view: memoryview, descriptors: Sequence[int]) -> None:
        self._queued += len(view)
        if self._queued > MAX_QUEUED:
            self.end("the other side does not read")
            return
        try:
            copies = [os.dup(descriptor) for descriptor in descriptors]
        except OSError as error:
            self.end(f"sending failed: {error.strerror}")
            return
        self._queue.append((view, copies))
        if not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        while self._queue:
            view, descriptors = self._queue[0]
            try:
                sent = self._send_once(view, descriptors)
            except OSError as error:
                self.end(f"sending failed: {error.strerror}")
                return
            if not sent:
                return
            _close(descriptors)
            self._queued -= sent
            if sent < len(view):
                self._queue[0] = (view[sent:], [])
                return
            self._queue.popleft()
        self._is_writing = False
        self._loop.remove_writer(self._socket)

    def _send_once(self, view: memoryview, descriptors: Sequence[int]) -> int:
        """How many bytes went; the descriptors went if any did."""
        try:
            if not descriptors:
                return self._socket.send(view, _SEND)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
            return self._socket.sendmsg([view], [rights], _SEND)
        except (BlockingIOError, InterruptedError):
            return 0


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """pid and uid of the other side, as the kernel wrote them down when it connected or listened
    (SO_PEERCRED, unix(7)). A pid that our namespace has no number for is 0."""
    form = "3i"  # struct ucred: pid, uid, gid
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(form))
    pid, uid, _ = struct.unpack(form, found)
    return pid, uid


def _descriptors_in(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            found += numbers
    return found


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
