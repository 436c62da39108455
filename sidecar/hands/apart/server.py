"""Hands as a process of its own: serves a `LocalHands` to core, over a Unix socket.

One core at a time. Who connects is known by its uid (SO_PEERCRED, unix(7)). As long as one core
is connected, every other is told so and sent away, to come again: two that read the same pipes
would each have some of the bytes, and neither would know. So the one there is keeps its place
even if it hangs, for it has its pipes all the same. What a connection began and did not end
(requests, uploads) ends with it; programs live on, and the next core may `take` them.

Hands trusts core. What core sends is checked all the same, because a request that makes no
sense is a defect that should be seen: the connection ends with one line in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Collection, Sequence

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from sidecar.bell import Bell
from sidecar.errors import CallError, Code, LimitExceeded, ProtocolError
from sidecar.hands.apart import wire
from sidecar.hands.apart.filerequests import Answer
from sidecar.hands.apart.keeper import Keeper
from sidecar.hands.apart.link import Link, peer_of
from sidecar.hands.apart.requests import Requests
from sidecar.hands.local.hands import LocalHands
from sidecar.protocol import envelope
from sidecar.protocol.fields import is_uint

log = logging.getLogger(__name__)

MAX_REQUESTS = 4096  # of one core at once; each waiter for a program is one
MAX_NEWCOMERS = 8  # connections that have not said hello yet
HELLO_TIME = 5.0  # seconds for that
LEAVE_TIME = 1.0  # seconds for a core that has hung up to be noticed when the next one is here
ACCEPT_PAUSE = 0.5  # seconds, when there is no descriptor for one more connection
FAREWELL = 1.0  # seconds for the answers to what core still asks when hands is to end
REFUSAL_PAUSE = 1.0  # seconds between lines of the log about strangers, who may come in crowds


class Server:
    """Serves `hands`, which stays its maker's to close, at a socket that listens."""

    def __init__(self, hands: LocalHands, *, core_uids: Collection[int] = ()) -> None:
        """Root may always be core; `core_uids` say who else, and if there are none, we."""
        self._hands = hands
        self._keeper = Keeper(hands)
        self._uids = {0, *(core_uids or [os.geteuid()])}
        self._incarnation = os.urandom(16)
        self._core: _Session | None = None
        self._newcomers = 0
        self._quiet_until = 0.0  # about strangers

    async def serve(self, listener: socket.socket) -> None:
        """Until cancelled. Owns `listener`. Copies of descriptors are closed at the end."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with anyio.create_task_group() as group:
                while True:
                    try:
                        sock, _ = await loop.sock_accept(listener)
                    except OSError as error:
                        log.warning("nobody can connect now: %s", error.strerror)
                        await anyio.sleep(ACCEPT_PAUSE)
                        continue
                    self._welcome(sock, group)
                    # Where somebody waits already, accept does not let others have their turn.
                    await anyio.lowlevel.checkpoint()
        finally:
            listener.close()
            self._keeper.close()

    async def answered(self) -> None:
        """Return once core has an answer to all that it has asked, or after `FAREWELL`."""
        with anyio.move_on_after(FAREWELL):
            while self._core is not None and self._core.is_asked:
                await self._core.quiet.wait()

    def _welcome(self, sock: socket.socket, group: TaskGroup) -> None:
        pid, uid = peer_of(sock)
        if uid not in self._uids or self._newcomers >= MAX_NEWCOMERS:
            sock.close()
            if anyio.current_time() >= self._quiet_until:
                self._quiet_until = anyio.current_time() + REFUSAL_PAUSE
                log.warning("refused %s: it may not be core here", _describe(pid, uid))
            return
        self._newcomers += 1
        group.start_soon(self._attend, sock, _describe(pid, uid))

    async def _attend(self, sock: socket.socket, who: str) -> None:
        session = _Session(sock, Requests(self._hands, self._keeper), who)
        try:
            with anyio.move_on_after(HELLO_TIME):
                await session.greeted.wait()
            if session.greeted.is_set() and not session.why:
                await self._let_in(session)
        finally:
            self._newcomers -= 1
            if not session.greeted.is_set():
                session.end("it did not say hello")
        if session.why:
            log.info("%s connected and left: %s", who, session.why)
            return
        log.info("core connected: %s", who)
        await session.serve(await self._facts())
        log.info("core disconnected: %s: %s", who, session.why)
        if self._core is session:
            self._core = None

    async def _let_in(self, session: _Session) -> None:
        """Make it the core, or tell it who is. The one before, or this very one, may just have
        hung up to dial again."""
        if self._core is not None:
            with anyio.move_on_after(LEAVE_TIME):
                await self._core.ended.wait()
        if self._core is not None and not self._core.why:
            session.refuse(f"it serves another core, {self._core.who}, until that is gone")
        elif not session.why:
            self._core = session

    async def _facts(self) -> dict[str, object]:
        capabilities = {
            name: envelope.sentence(value) if isinstance(value, str) else value
            for name, value in (await self._hands.capabilities()).items()
        }
        return {
            "incarnation": self._incarnation,
            "pid": os.getpid(),
            "uid": os.getuid(),
            "capabilities": {**capabilities, "form": "socket"},
        }


class _Session:
    """One core's connection."""

    def __init__(self, sock: socket.socket, requests: Requests, who: str) -> None:
        self.greeted = anyio.Event()  # by hello, or never to be
        self.quiet = Bell()  # rung when nothing is asked any more
        self.ended = anyio.Event()
        self.why = ""  # it ended
        self.who = who
        self._requests = requests
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._group: TaskGroup | None = None
        self._link = Link(
            sock, limit=wire.MAX_REQUEST, on_message=self._receive, on_end=self._on_end
        )
        self._link.listen()

    async def serve(self, facts: dict[str, object]) -> None:
        """Until the connection ends. What it began and did not end goes with it."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                self._link.send(wire.Hello(wire.VERSION, facts))
                await self.ended.wait()
                group.cancel_scope.cancel()
        finally:
            self.end("hands is closing")
            await self._requests.aclose()

    @property
    def is_asked(self) -> bool:
        """Whether there are requests without an answer."""
        return bool(self._scopes)

    def refuse(self, why: str) -> None:
        """Tell the other side why, as far as it listens, and end."""
        error = envelope.error_map(CallError(Code.HANDS_AWAY, why))
        self._link.send(wire.Failure(wire.ABOUT_CONNECTION, error))
        self._link.end(why)

    def end(self, why: str) -> None:
        self._link.end(why)

    def _on_end(self, why: str) -> None:
        self.why = why
        self.greeted.set()
        self.ended.set()

    def _receive(self, message: wire.Message, descriptors: list[int]) -> None:
        if descriptors:
            for descriptor in descriptors:
                os.close(descriptor)
            raise ProtocolError("descriptors, and hands takes none")
        match message:
            case wire.Hello(version=version):
                if version != wire.VERSION:
                    self.refuse(
                        f"it speaks version {version}, this hands {wire.VERSION}: use the same"
                        " release on both sides"
                    )
                self.greeted.set()
            case wire.Request():
                self._begin(message)
            case wire.Cancel(id=id):
                if (scope := self._scopes.get(id)) is not None:
                    scope.cancel()
            case _:
                raise ProtocolError(f"{type(message).__name__} is for hands to send")

    def _begin(self, request: wire.Request) -> None:
        if self._group is None or request.id in self._scopes:
            raise ProtocolError("a request before our hello, or under an id that is in use")
        if request.method != "spawn" and "wait" in request.arguments:
            raise ProtocolError(f"a wait that goes with {request.method!r}")
        if not is_uint(request.arguments.get("wait", 0)):
            raise ProtocolError("a wait under an id that is none")
        if len(self._scopes) >= MAX_REQUESTS:
            error = CallError(Code.LIMIT, f"more than {MAX_REQUESTS} requests at once")
            self._link.send(wire.Failure(request.id, envelope.error_map(error)))
            return
        self._scopes[request.id] = anyio.CancelScope()
        self._group.start_soon(self._perform, request)

    async def _perform(self, request: wire.Request) -> None:
        """A request, and the `wait` that may go with a `spawn`: it saves a round trip, and the
        end of the program is told the moment that it is known."""
        was_done = await self._answer(request)
        number = request.arguments.get("wait")
        if number is None:
            return
        if was_done and number not in self._scopes:
            waiting = wire.Request(number, "wait", {"key": request.arguments["key"]})
            self._scopes[number] = anyio.CancelScope()
            await self._answer(waiting)
        else:
            self._link.send(wire.Failure(number, _CANCELLED))

    async def _answer(self, request: wire.Request) -> bool:
        """One request gets one answer, whatever happens, unless the connection ends. Whether it
        was done."""
        answer: Answer | None = None
        frame: bytes | None = None
        descriptors: Sequence[int] = ()
        error = _CANCELLED
        try:
            with self._scopes[request.id]:
                answer = await self._requests.perform(request.method, request.arguments)
                frame = _reply(request, answer)
                descriptors = answer.descriptors
        except CallError as refusal:
            error = envelope.error_map(refusal)
        except ProtocolError as mistake:
            self.end(f"the other side broke the protocol: {mistake}")
        except Exception:  # a defect of one request ends its answer, not hands
            log.exception("the request %r failed inside", request.method)
            error = _DEFECT
        del self._scopes[request.id]
        if frame is None:
            frame = wire.encode(wire.Failure(request.id, error))
        self._link.send_frame(frame, descriptors)
        if answer is not None and answer.made:
            for descriptor in answer.descriptors:
                os.close(descriptor)
        if not self._scopes:
            self.quiet.ring()
        return answer is not None


def _describe(pid: int, uid: int) -> str:
    """Of a process in a PID namespace that we cannot see the kernel says 0 (unix(7))."""
    return f"process {pid} of uid {uid}" if pid else f"a process of uid {uid} in another container"


def _reply(request: wire.Request, answer: Answer) -> bytes:
    frame = wire.encode(wire.Reply(request.id, answer.value), len(answer.descriptors))
    if len(frame) > wire.MAX_REPLY:
        raise LimitExceeded("bytes of an answer", size=len(frame), limit=wire.MAX_REPLY)
    return frame


_CANCELLED = envelope.error_map(CallError(Code.CANCELLED, "it was cancelled"))
_DEFECT = envelope.error_map(CallError(Code.INTERNAL, "a defect of hands; its log says more"))
