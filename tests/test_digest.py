"""The digest is that of all bytes in order, wherever they were hashed."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import digest as digest_module
from sidecar.digest import Digest

KIB = 1024


@given(sizes=st.lists(st.sampled_from([0, 1, 4095, 4096, 70_000, 300_000]), max_size=30))
@settings(max_examples=40, deadline=None)
async def test_small_and_large_chunks_are_hashed_in_order(sizes: list[int]) -> None:
    chunks = [bytes([number]) * size for number, size in enumerate(sizes)]
    digest = Digest()
    for chunk in chunks:
        await digest.ready()
        digest.update(chunk)
    expected = hashlib.sha256(b"".join(chunks))
    assert await digest.digest() == expected.digest()
    assert await digest.hexdigest() == expected.hexdigest()


async def test_bytes_may_follow_a_digest() -> None:
    digest = Digest()
    digest.update(b"a" * 10_000)
    await digest.digest()
    digest.update(b"b" * 10_000)
    expected = hashlib.sha256(b"a" * 10_000 + b"b" * 10_000).digest()
    assert await digest.digest() == expected


async def test_the_first_large_chunk_starts_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(max_workers=1) as worker:
        monkeypatch.setattr(digest_module, "_worker", lambda: worker)
        digest = Digest()
        digest.update(b"a" * 4095)
        assert await digest.digest() == hashlib.sha256(b"a" * 4095).digest()
        assert len(worker._threads) == 0
        digest.update(b"b" * 4096)
        await digest.digest()
        assert len(worker._threads) == 1


async def test_at_most_eight_chunks_wait_and_cancelling_a_wait_loses_none() -> None:
    go_on = threading.Event()
    digest_module._worker().submit(go_on.wait, 10)
    digest = Digest()
    for number in range(8):
        await digest.ready()
        digest.update(bytes([number]) * 4 * KIB)
    with pytest.raises(AssertionError, match="await ready"):
        digest.update(b"9")
    for wait in (digest.ready, digest.digest):
        with anyio.move_on_after(0.01) as scope:
            await wait()
        assert scope.cancelled_caught
    go_on.set()
    await digest.ready()
    digest.update(b"9")
    expected = b"".join(bytes([number]) * 4 * KIB for number in range(8)) + b"9"
    assert await digest.digest() == hashlib.sha256(expected).digest()


async def test_the_loop_runs_on_while_a_chunk_is_hashed() -> None:
    digest = Digest()
    turns = 0
    async with anyio.create_task_group() as tasks:

        async def hash_much() -> None:
            for _ in range(8):
                await digest.ready()
                digest.update(bytes(4 << 20))
            await digest.digest()
            tasks.cancel_scope.cancel()

        tasks.start_soon(hash_much)
        while True:
            await anyio.sleep(0.001)
            turns += 1
    assert turns >= 3
