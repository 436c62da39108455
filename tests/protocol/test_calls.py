"""The decisions around one call id: when two calls are the same, and each refusal in words."""

from __future__ import annotations

import hashlib

import pytest

from sidecar.errors import CallError, Code, Retry, Started
from sidecar.protocol import calls
from sidecar.protocol.envelope import Call, Result, error_from

ID = bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f")
SHOWN = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_a_call_is_the_same_by_command_and_argument_bytes() -> None:
    call = Call(ID, "exec.run", b"\xa0")
    assert calls.call_digest(call) == hashlib.sha256(b"exec.run\x00\xa0").digest()
    assert calls.call_digest(Call(ID, "exec.run", b"\xa0", 5, 5, "t")) == calls.call_digest(call)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Call(ID, "exec.ru", b"n\xa0"), id="the-border-between-them"),
        pytest.param(Call(ID, "exec.run", b"\xb8\x00"), id="the-same-value-in-other-bytes"),
    ],
)
def test_other_bytes_are_another_call(other: Call) -> None:
    assert calls.call_digest(other) != calls.call_digest(Call(ID, "exec.run", b"\xa0"))


def test_a_stored_result_comes_back() -> None:
    result = Result(ID, b"\xa0", None, {1: [5, b"d" * 32], 2: [0, None]}, 7)
    answer = calls.storable(result)
    assert answer is not None
    assert calls.stored_result(answer) == result


@pytest.mark.parametrize("size, is_kept", [(65_000, True), (65_536, False)])
def test_a_result_that_is_too_large_is_not_stored(size: int, is_kept: bool) -> None:
    assert (calls.storable(Result(ID, b"x" * size)) is not None) is is_kept


@pytest.mark.parametrize(
    "error, code, started, retry",
    [
        (calls.conflict(ID), Code.CONFLICT, Started.NO, Retry.NEVER),
        (calls.expired(ID), Code.EXPIRED_ID, Started.UNKNOWN, Retry.NEW_ID),
        (calls.fenced(ID), Code.CANCELLED, Started.NO, Retry.NEW_ID),
        (calls.cancelled(ID, started=Started.YES), Code.CANCELLED, Started.YES, Retry.NEW_ID),
        (calls.answer_gone(ID), Code.ANSWER_GONE, Started.YES, Retry.NEVER),
        (calls.outcome_unknown(ID), Code.OUTCOME_UNKNOWN, Started.UNKNOWN, Retry.NEVER),
        (calls.too_late(ID, started=Started.NO), Code.TIMEOUT, Started.NO, Retry.NEW_ID),
    ],
)
def test_each_refusal_says_what_began_and_what_may_be_done(
    error: CallError, code: Code, started: Started, retry: Retry
) -> None:
    assert (error.code, error.started, error.retry) == (code, started, retry)
    assert SHOWN in error.message


def test_a_defect_shows_nothing_of_its_inside() -> None:
    error = calls.defect(started=Started.UNKNOWN)
    assert (error.code, error.message) == (
        Code.INTERNAL,
        "a defect of the sidecar; its log says more",
    )


def test_a_failure_carries_its_error_and_the_sequence_number() -> None:
    result = calls.failure(ID, calls.too_late(ID, started=Started.YES), seq=7)
    assert (result.id, result.value, result.seq) == (ID, None, 7)
    assert result.error is not None
    error = error_from(result.error)
    assert (error.code, error.details) == (Code.TIMEOUT, {"which": "deadline"})
