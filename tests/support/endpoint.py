"""A platform endpoint of a few lines, over real sockets, which says what a test wants it to."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream


@dataclass
class Answer:
    """`body` is sent as JSON, or as it is if it is bytes; with `cut`, the connection ends half
    way; with `holds`, the answer waits for that event."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    holds: anyio.Event | None = None


@dataclass
class Asked:
    """One request."""

    path: str
    bearer: str
    body: dict[str, Any]


def grant(number: int, *, expires_in: float = 300.0, generation: int = 1, **more: Any) -> Answer:
    """The answer that gives token-N and run-token-N."""
    found = {
        "url": "ws://127.0.0.1:1/client/hubs/h",
        "token": f"token-{number}",
        "run_token": f"run-token-{number}",
        "expires_in": expires_in,
        "generation": generation,
    }
    return Answer(body={**found, **more})


UNAUTHORIZED = Answer(401, {"error": "unauthorized"})
SUPERSEDED = Answer(409, {"error": "superseded"})
RUN_ENDED = Answer(403, {"error": "run_ended"})


class FakeEndpoint:
    """Gives `answers` in turn, the last one again and again; notes what was `asked`."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.asked: list[Asked] = []
        self.at_once = 0  # requests that are being answered
        self.most_at_once = 0
        self.url = ""

    def says(self, *answers: Answer) -> None:
        """From now on."""
        self.answers = deque(answers)

    @property
    def bearers(self) -> list[str]:
        return [asked.bearer for asked in self.asked]

    @property
    def reasons(self) -> list[str]:
        return [asked.body["reason"] for asked in self.asked]

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await self._answer(stream)
            except (anyio.BrokenResourceError, anyio.IncompleteRead):
                return  # it was given up
            finally:
                self.at_once -= 1

    async def _answer(self, stream: SocketStream) -> None:
        reader = BufferedByteReceiveStream(stream)
        head = (await reader.receive_until(b"\r\n\r\n", 65536)).decode()
        lines = head.split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        body = await reader.receive_exactly(int(headers.get("content-length", "0")))
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        self.asked.append(Asked(lines[0].split()[1], bearer, json.loads(body or b"{}")))
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if answer.holds is not None:
            await answer.holds.wait()
        content = answer.body
        if not isinstance(content, bytes):
            content = b"" if content is None else json.dumps(content).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        start = f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(content)}\r\n{more}\r\n"
        await stream.send(start.encode() + (content[:-3] if answer.cut else content))


@asynccontextmanager
async def endpoint() -> AsyncIterator[FakeEndpoint]:
    """One that listens, until the block ends."""
    fake = FakeEndpoint()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    fake.url = f"http://127.0.0.1:{port}/platform"
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, fake.serve)
        yield fake
        group.cancel_scope.cancel()
