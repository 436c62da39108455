"""What watchers may not take from those who act: places, memory, receipts, the last word."""

from __future__ import annotations

from pathlib import Path

import pytest
from rawpeer import RawPeer, raw_peer
from stack import Stack, open_stack, until

from sidecar.errors import CallError, Code
from sidecar.protocol import envelope as wire
from sidecar.protocol.names import Scope

UNREAD = 100_000  # bytes of a file that its reader grants no credit for


async def hold(peer: RawPeer, count: int) -> list[bytes]:
    """Calls that stay open, because nobody takes what they send."""
    return [await peer.call("files.read", {"path": "large"}, credit=1) for _ in range(count)]


def large_file(stack: Stack) -> None:
    (stack.workspace / "large").write_bytes(bytes(UNREAD))


async def test_watchers_get_half_of_the_open_calls_and_leave_the_others(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        large_file(stack)
        async with (
            raw_peer(stack.hub, "eve", scope=Scope.WATCH) as eve,
            raw_peer(stack.hub) as peer,
        ):
            await eve.attach()
            await peer.attach()
            held = await hold(eve, 129)
            refused = await eve.error(held[128])
            assert refused.code is Code.LIMIT
            assert refused.message == "watch-only open calls: 129, at most 128 allowed"
            assert await peer.result(await peer.call("sidecar.ping")) is not None


async def test_a_watcher_sends_no_streams(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack:
        large_file(stack)
        async with raw_peer(stack.hub, "eve", scope=Scope.WATCH) as eve:
            await eve.attach()
            (id,) = await hold(eve, 1)
            await eve.send(wire.encode_data(id, 0, 0, b"memory"))
            reset = await eve.expect(wire.Reset, id=id, n=0)
            assert (reset.code, reset.message) == (
                "limit",
                "streams to this call: 1, at most 0 allowed",
            )


async def test_a_call_gets_at_most_eight_streams(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        id = await peer.call("exec.run", {"argv": ["cat"], "stdin": "stream"})
        for n in range(9):
            await peer.send(wire.encode_data(id, n, 0, b"x"))
        assert (await peer.expect(wire.Reset, id=id, n=8)).code == "limit"
        call = stack.sidecar.dispatcher._open[id]
        assert sorted(call.context.receivers) == list(range(8))
        await peer.send(wire.Cancel(id))
        await peer.error(id)


async def test_all_calls_together_get_at_most_256_streams(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        ids = [await peer.call("exec.run", {"argv": ["cat"], "stdin": "stream"}) for _ in range(33)]
        for id in ids:
            await peer.send(*[wire.encode_data(id, n, 0, b"x") for n in range(8)])
        assert (await peer.expect(wire.Reset, id=ids[32])).code == "limit"
        last = stack.sidecar.dispatcher._open[ids[32]]
        assert set(last.context.receivers) <= {0}  # its program's own
        await peer.send(*[wire.Cancel(id) for id in ids])
        for id in ids:
            await peer.error(id)


async def test_arguments_over_the_limit_are_refused_here_too(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        error = await peer.error(await peer.call("sidecar.ping", {"payload": bytes(256 * 1024)}))
        assert error.code is Code.LIMIT
        assert error.message.startswith("bytes of arguments: ")


@pytest.mark.slow
async def test_fences_and_calls_of_watchers_push_out_no_receipt_of_others(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        mkdir = await peer.call("files.mkdir", {"path": "made"})
        await peer.result(mkdir)
        async with raw_peer(stack.hub, "eve", scope=Scope.WATCH) as eve:
            await eve.attach()
            ids = [eve.new_id() for _ in range(20_000)]  # more than all receipts
            for start in range(0, len(ids), 500):
                await eve.send(*[wire.Cancel(id) for id in ids[start : start + 500]])
                await eve.expect(wire.Result, id=ids[start + 499], timeout=20)
        await peer.call("files.mkdir", {"path": "made"}, id=mkdir)
        assert await peer.result(mkdir) is not None  # the first answer, not that it exists


async def test_a_watcher_neither_fences_nor_forges_a_call_of_others(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub) as peer:
        await peer.attach()
        async with raw_peer(stack.hub, "eve", scope=Scope.WATCH) as eve:
            await eve.attach()
            to_come, ended = peer.new_id(), await peer.call("sidecar.ping")
            await peer.result(ended)

            await eve.send(wire.Cancel(to_come))
            assert (await eve.error(to_come)).code is Code.CANCELLED
            await peer.call("files.mkdir", {"path": "made"}, id=to_come)
            await peer.result(to_come)
            assert (stack.workspace / "made").is_dir()

            await eve.call("sidecar.info", id=ended)
            with pytest.raises(CallError, match="somebody who may do more") as caught:
                await eve.result(ended)
            assert caught.value.code is Code.FORBIDDEN


async def test_a_watchers_call_is_repeated_like_any_other(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as stack, raw_peer(stack.hub, scope=Scope.WATCH) as eve:
        await eve.attach()
        id = await eve.call("sidecar.info")
        first = await eve.result(id)
        await until(lambda: not stack.sidecar.dispatcher._open)
        await eve.call("sidecar.info", id=id)
        assert await eve.result(id) == first
        await eve.send(wire.Ask(id))
        assert await eve.result(id) == first
