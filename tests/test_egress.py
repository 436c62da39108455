"""What leaves is counted once, and what may not leave does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.egress import CallEgress, Egress, MeteredSource
from sidecar.egressfile import EgressFile
from sidecar.errors import CallError, Code
from sidecar.policy import EgressLimits, Policy
from sidecar.protocol.streams import Piece
from sidecar.streaming import BytesSource


def meter(*, call: int | None = None, run: int | None = None) -> Egress:
    return Egress(Policy(EgressLimits(call, run)))


def denied(call: CallEgress, size: int) -> dict[str, object]:
    with pytest.raises(CallError) as caught:
        call.take(size)
    assert caught.value.code is Code.DENIED
    return caught.value.details


def test_without_limits_everything_leaves_and_is_counted() -> None:
    egress = meter()
    egress.of_call().take(1 << 50)
    assert egress.of_call().take_some(7) == 7
    assert egress.facts() == {"spent": (1 << 50) + 7, "call_limit": None, "run_limit": None}


def test_a_limit_may_be_reached_and_not_passed() -> None:
    egress = meter(call=10, run=15)
    first = egress.of_call()
    first.take(10)
    assert denied(first, 1) == {"which": "call", "limit": 10, "spent": 10}
    second = egress.of_call()
    assert second.may_take(6) is False
    assert denied(second, 6) == {"which": "run", "limit": 15, "spent": 10}
    assert second.take_some(6) == 5
    assert second.may_take(0)
    assert egress.spent == 15


def test_what_two_calls_take_in_turns_is_never_more_than_the_run_may() -> None:
    egress = meter(run=100)
    calls = [egress.of_call(), egress.of_call()]
    taken = 0
    while all(call.may_take(7) for call in calls):
        taken += 14
    assert taken == 98 and egress.spent == 98


def test_a_limit_that_was_lowered_below_what_is_spent_lets_nothing_leave(tmp_path: Path) -> None:
    file = EgressFile.open(tmp_path / "egress")
    file.note(100)
    egress = Egress(Policy(EgressLimits(run=50)), file)
    assert denied(egress.of_call(), 1) == {"which": "run", "limit": 50, "spent": 100}
    assert egress.of_call().may_take(0)
    egress.close()


def test_the_count_of_the_run_goes_on_in_the_next_life(tmp_path: Path) -> None:
    for spent in (30, 60, 90):
        egress = Egress(Policy(EgressLimits(run=100)), EgressFile.open(tmp_path / "egress"))
        egress.of_call().take(30)
        assert egress.spent == spent
        egress.close()
    egress = Egress(Policy(EgressLimits(run=100)), EgressFile.open(tmp_path / "egress"))
    assert denied(egress.of_call(), 30) == {"which": "run", "limit": 100, "spent": 90}
    egress.close()


# Streams ------------------------------------------------------------------------------------


async def test_a_stream_is_sent_as_far_as_it_may_and_then_refused() -> None:
    egress = meter(call=10)
    source = MeteredSource(BytesSource(b"0123456789abc"), egress.of_call())
    assert await source.read(0, 6) == Piece(0, b"012345")
    assert await source.read(6, 6) == Piece(6, b"6789")
    with pytest.raises(CallError, match="1 bytes|3 bytes") as caught:
        await source.read(10, 6)
    assert caught.value.details == {"which": "call", "limit": 10, "spent": 10}
    assert egress.spent == 10


async def test_a_stream_that_needs_all_that_is_left_comes_to_its_end() -> None:
    source = MeteredSource(BytesSource(b"0123456789"), meter(call=10).of_call())
    assert await source.read(0, 100) == Piece(0, b"0123456789", ended=True)
    assert await source.read(10, 100) == Piece(10, b"", ended=True)


async def test_what_is_sent_again_counts_once() -> None:
    egress = meter(run=10)
    source = MeteredSource(BytesSource(b"0123456789"), egress.of_call())
    for offset, counted in ((0, 6), (0, 6), (3, 9), (2, 9), (4, 10), (0, 10)):
        await source.read(offset, 6)
        assert egress.spent == counted


async def test_what_is_gone_at_the_source_does_not_count() -> None:
    class Gone(BytesSource):
        async def read(self, offset: int, size: int) -> Piece:
            return await super().read(max(offset, 8), size)

    egress = meter()
    source = MeteredSource(Gone(b"0123456789"), egress.of_call(), start=2)
    assert await source.read(2, 10) == Piece(8, b"89", ended=True)
    assert egress.spent == 2


async def test_a_stream_that_goes_on_after_a_restart_counts_for_its_call_from_the_start() -> None:
    egress = meter(call=8)
    source = MeteredSource(BytesSource(b"0123456789"), egress.of_call(), is_resumed=True)
    assert await source.read(6, 10) == Piece(6, b"67")
    assert egress.spent == 2  # the rest was counted in the life before
    with pytest.raises(CallError):
        await source.read(8, 10)


async def test_who_had_it_before_a_restart_and_wants_it_again_has_it_counted() -> None:
    egress = Egress(Policy(EgressLimits(run=4)))
    source = MeteredSource(BytesSource(b"0123456789"), egress.of_call(), is_resumed=True)
    assert await source.read(10, 10) == Piece(10, b"", ended=True)
    assert await source.read(0, 10) == Piece(0, b"0123")
    assert egress.spent == 4
    with pytest.raises(CallError):
        await source.read(4, 10)
