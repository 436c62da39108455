"""One connection of core to a hands in another process: requests out, answers in.

Core does not trust hands. A message that breaks the protocol, an answer to nothing, or one that
does not fit its question ends the connection; what it concerned fails with a coded error.
"""

from __future__ import annotations

import asyncio
import enum
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio

from sidecar.errors import CallError, Code, Invalid, ProtocolError, Started
from sidecar.hands.apart import wire
from sidecar.hands.apart.descriptors import discard
from sidecar.hands.apart.link import CLOSED, Link, peer_of
from sidecar.hands.apart.messages import capabilities_from, error_from
from sidecar.protocol.fields import is_id, is_uint
from sidecar.protocol.record import Record, record

HELLO_TIME = 5.0  # seconds from the connection until hands has said who it is
MAX_OPEN = 4096  # requests that wait for their answer
GIVING = frozenset(
    {"open", "append", "replace", "spawn", "take", "tool"}
)  # the answer has descriptors


class Lost(Exception):
    """The connection ended before the answer came; the sentence says why."""


@record
class Peer(Record):
    """The hands at the other end. `pid` is what it says; the uid is the kernel's word."""

    uid: int
    pid: int
    incarnation: bytes
    capabilities: Mapping[str, str | bool]

    @property
    def trust(self) -> str:
        """Another identity is a wall between us, unless it is root's."""
        return "shared" if self.uid in (0, os.geteuid()) else "isolated"


class State(enum.Enum):
    """Of a question; it only moves forward."""

    OPEN = enum.auto()
    ANSWERED = enum.auto()
    LATE = enum.auto()  # nobody waits any more; the answer may come yet
    LOST = enum.auto()  # with the connection


class Question:
    """A request, and what became of it. Of an answer that nobody waits for any more the
    descriptors are closed, and `undo` gets its value."""

    __slots__ = ("descriptors", "error", "gives", "id", "settled", "state", "undo", "value")

    def __init__(
        self, id: int, undo: Callable[[Any], None] | None = None, *, gives: bool = False
    ) -> None:
        self.id = id
        self.undo = undo
        self.gives = gives  # descriptors; whoever asked looks for them
        self.state = State.OPEN
        self.settled = anyio.Event()  # no longer open
        self.value: Any = None
        self.descriptors: list[int] = []
        self.error: CallError | None = None

    def settle(self, state: State) -> None:
        if self.state is State.OPEN:
            self.state = state
            self.settled.set()


class Connection:
    """Made by `connect`."""

    def __init__(self, sock: socket.socket) -> None:
        self.peer: Peer
        self.ended = anyio.Event()
        self.why = ""  # it ended
        _, self._uid = peer_of(sock)
        self._greeted = anyio.Event()
        self._open: dict[int, Question] = {}
        self._next_id = 1
        self._loop = asyncio.get_running_loop()
        self._link = Link(sock, limit=wire.MAX_REPLY, on_message=self._receive, on_end=self._on_end)
        self._link.listen()

    @property
    def is_over(self) -> bool:
        return self._link.is_over

    def end(self, why: str) -> None:
        """Close it. Whoever waits for an answer gets `Lost`."""
        self._link.end(why)

    async def greet(self) -> None:
        """Say hello and hear it; `peer` is known then. Raises `Lost`."""
        try:
            self._link.send(wire.Hello(wire.VERSION, {}))
            with anyio.move_on_after(HELLO_TIME):
                await self._greeted.wait()
        finally:
            if not hasattr(self, "peer"):
                self.end(f"hands did not say hello within {HELLO_TIME:.0f} s")
        if self.is_over:
            hint = f" before its hello: does it have --core-uid {os.geteuid()}?"
            raise Lost(self.why + (hint if self.why == CLOSED else ""))

    async def ask(
        self,
        method: str,
        arguments: Mapping[str, Any],
        *,
        time: float | None,
        undo: Callable[[Any], None] | None = None,
    ) -> Question:
        """The answered question; its descriptors are the caller's. Raises the answer if that is
        an error, `hands_away` after `time` seconds, or `Lost`."""
        question = self.begin(method, arguments, undo)
        # A scope of anyio with a deadline would cost as much as the system calls.
        timer = self._loop.call_later(time, question.settle, State.LATE) if time else None
        try:
            await question.settled.wait()
        except BaseException:
            self._abandon(question)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if question.state is State.LATE:
            self._link.send(wire.Cancel(question.id))
            raise CallError(
                Code.HANDS_AWAY,
                f"hands did not answer `{method}` within {time:g} s",
                started=Started.UNKNOWN,
            )
        return self.answer(question)

    def expect(self) -> Question:
        """A question that goes with another one: its number is told there (`spawn`)."""
        return self._add(None)

    def answer(self, question: Question) -> Question:
        """What became of a settled one. Raises the answer if that is an error, or `Lost`."""
        if question.state is State.LOST:
            raise Lost(self.why)
        if question.error is not None:
            raise question.error
        return question

    def begin(
        self,
        method: str,
        arguments: Mapping[str, Any],
        undo: Callable[[Any], None] | None = None,
    ) -> Question:
        """Send a request."""
        for value in arguments.values():
            if type(value) is int and abs(value) >= 1 << 64:
                raise Invalid("a number of more than 64 bits")
        question = self._add(undo, gives=method in GIVING)
        frame = wire.encode(wire.Request(question.id, method, dict(arguments)))
        if len(frame) > wire.MAX_REQUEST:
            del self._open[question.id]
            raise CallError(
                Code.LIMIT,
                f"arguments of {len(frame)} bytes, at most {wire.MAX_REQUEST} allowed",
                size=len(frame),
                limit=wire.MAX_REQUEST,
            )
        self._link.send_frame(frame)
        return question

    def do(
        self,
        method: str,
        arguments: Mapping[str, Any],
        undo: Callable[[Any], None] | None = None,
    ) -> None:
        """Send a request for its effect; nobody waits for the answer."""
        if not self.is_over:
            self.begin(method, arguments, undo).settle(State.LATE)

    def _add(self, undo: Callable[[Any], None] | None, *, gives: bool = False) -> Question:
        if len(self._open) >= MAX_OPEN:
            raise CallError(Code.LIMIT, f"more than {MAX_OPEN} requests wait for hands")
        question = Question(self._next_id, undo, gives=gives)
        self._next_id += 1
        self._open[question.id] = question
        if self.is_over:
            self._lose(question)
        return question

    def _abandon(self, question: Question) -> None:
        """Nobody waits any more. The answer may be here, or on its way, all the same."""
        if question.state is State.ANSWERED:
            self._undo(question, question.value, question.descriptors)
        else:
            question.settle(State.LATE)
            self._link.send(wire.Cancel(question.id))

    def _undo(self, question: Question, value: Any, descriptors: list[int]) -> None:
        discard(descriptors)
        if question.undo is None or question.error is not None:
            return
        try:
            question.undo(value)
        except CallError as error:  # too much waits for hands, or its value cannot be sent back
            self.end(f"what it did late cannot be undone: {error.message}")

    def _on_end(self, why: str) -> None:
        self.why = why
        for question in list(self._open.values()):
            self._lose(question)
        self._greeted.set()
        self.ended.set()

    def _lose(self, question: Question) -> None:
        self._open.pop(question.id, None)
        question.settle(State.LOST)

    # What comes ---------------------------------------------------------------------------

    def _receive(self, message: wire.Message, descriptors: list[int]) -> None:
        try:
            self._handle(message, descriptors)
        except BaseException:
            discard(descriptors)
            raise

    def _handle(self, message: wire.Message, descriptors: list[int]) -> None:
        if isinstance(message, wire.Failure) and message.id == wire.ABOUT_CONNECTION:
            self.end(error_from(message.error).message)
        elif isinstance(message, wire.Hello):
            self._hear_hello(message)
        elif isinstance(message, wire.Reply | wire.Failure):
            self._hear_answer(message, descriptors)
            return
        else:
            raise ProtocolError(f"{type(message).__name__} is for core to send")
        if descriptors:
            raise ProtocolError("descriptors with a message that has none")

    def _hear_hello(self, hello: wire.Hello) -> None:
        if self._greeted.is_set():
            raise ProtocolError("a second hello")
        if hello.version != wire.VERSION:
            self.end(
                f"it speaks version {hello.version}, this sidecar {wire.VERSION}: use the same"
                " release on both sides"
            )
            return
        facts = hello.facts
        if not is_id(facts.get("incarnation")) or not is_uint(facts.get("pid")):
            raise ProtocolError("a hello without incarnation or pid")
        capabilities = capabilities_from(facts.get("capabilities"))
        self.peer = Peer(self._uid, facts["pid"], facts["incarnation"], capabilities)
        self._greeted.set()

    def _hear_answer(self, answer: wire.Reply | wire.Failure, descriptors: list[int]) -> None:
        question = self._open.get(answer.id)
        if question is None:
            raise ProtocolError("an answer to a request that was not made")
        if descriptors and not (question.gives and isinstance(answer, wire.Reply)):
            raise ProtocolError("descriptors with an answer that has none")
        if isinstance(answer, wire.Failure):
            question.error = error_from(answer.error)
        elif question.state is State.LATE:
            self._undo(question, answer.value, descriptors)
        else:
            question.value, question.descriptors = answer.value, descriptors
        self._open.pop(answer.id, None)  # if that did not end the connection, and all with it
        question.settle(State.ANSWERED)


def connect(path: str) -> Connection:
    """A connection to the hands that listens at `path`. Raises `OSError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # It never waits: a queue of connections that is full answers EAGAIN (unix(7)).
        sock.connect(path)
        return Connection(sock)
    except BaseException:
        with suppress(OSError):
            sock.close()
        raise
