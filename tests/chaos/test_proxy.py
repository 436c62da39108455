"""The proxy does what it says, at the byte that it was told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from tests.chaos.proxy import Link, Trigger, Way


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, SocketStream]]:
    """A link to an echo, and a connection through it."""

    async def echo(stream: SocketStream) -> None:
        async with stream:
            with contextlib.suppress(anyio.BrokenResourceError):
                async for data in stream:
                    await stream.send(data)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with Link("test", ("127.0.0.1", port)).serve() as link:
            async with await anyio.connect_tcp("127.0.0.1", link.port) as stream:
                yield link, stream
        group.cancel_scope.cancel()


async def exactly(stream: SocketStream, size: int) -> bytes:
    data = b""
    with anyio.fail_after(5):
        while len(data) < size:
            data += await stream.receive(size - len(data))
    return data


async def is_silent(stream: SocketStream) -> bool:
    with anyio.move_on_after(0.05) as waiting:
        await stream.receive()
    return waiting.cancelled_caught


async def test_what_nobody_touches_passes() -> None:
    async with linked() as (link, stream):
        await stream.send(b"hello")
        assert await exactly(stream, 5) == b"hello"
        assert link.passed == {Way.UP: 5, Way.DOWN: 5}


async def test_it_strikes_at_the_byte() -> None:
    async with linked() as (link, stream):
        link.arm(Trigger(Way.DOWN, link.stall, 12))
        await stream.send(b"hello")
        assert await exactly(stream, 5) == b"hello"
        await stream.send(b"wonderful world")
        assert await exactly(stream, 7) == b"wonderf"
        assert await is_silent(stream)
        link.heal()
        assert await exactly(stream, 8) == b"ul world"


async def test_it_strikes_in_the_middle_of_a_frame() -> None:
    async with linked() as (link, stream):
        link.arm(Trigger(Way.DOWN, link.stall, 2, by_frame=True, into=3))
        await stream.send(b"GET /\r\n\r\n" + b"\x82\x02ab" + b"\x82\x04cdef")
        assert await exactly(stream, 16) == b"GET /\r\n\r\n" + b"\x82\x02ab" + b"\x82\x04c"
        assert await is_silent(stream)


async def test_a_cut_is_a_reset() -> None:
    async with linked() as (link, stream):
        link.arm(Trigger(Way.UP, link.cut, 3))
        await stream.send(b"hello")
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            await exactly(stream, 5)


async def test_a_half_open_link_swallows_one_way_only() -> None:
    async with linked() as (link, stream):
        link.swallowed.add(Way.UP)
        await stream.send(b"lost")
        assert await is_silent(stream)
        link.heal()
        await stream.send(b"kept")
        assert await exactly(stream, 4) == b"kept"


async def test_a_link_that_is_down_lets_nobody_in() -> None:
    async with linked() as (link, _):
        link.is_down = True
        async with await anyio.connect_tcp("127.0.0.1", link.port) as other:
            with pytest.raises(anyio.EndOfStream):
                await exactly(other, 1)
