"""Which call is new, repeated, fenced or ended: the decisions around one call id.

The receipts say what is known of an id; this module turns that into what to answer. A call
id is the correlation id and the idempotency key: the same id runs nothing and gets the first
answer, with other arguments it is a conflict, and one that a cancel overtook never runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sidecar.errors import CallError, Code, Started
from sidecar.protocol.envelope import (
    Call,
    Reset,
    Result,
    decode,
    dumps,
    encode,
    error_from,
    error_map,
    loads,
)
from sidecar.protocol.ids import show
from sidecar.protocol.limits import ANSWER_BYTES
from sidecar.protocol.streams import reset_for


def call_digest(call: Call) -> bytes:
    """What makes two calls the same: the command and the argument bytes, as received."""
    return hashlib.sha256(call.command.encode() + b"\0" + call.arguments).digest()


def failure(id: bytes, error: CallError, *, seq: int = 0) -> Result:
    """The result of a call that failed."""
    return Result(id, error=error_map(error), seq=seq)


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the streams of a call came from, for whoever sends them again after a restart."""

    command: str
    credit: int
    note: bytes  # for the resumer of the command


def storable(result: Result, origins: Origins | None = None) -> bytes | None:
    """The result as receipts keep it, with the origins of its streams as far as there is room;
    None when it is too large, and `answer_gone` later."""
    encoded = encode(result)
    if len(encoded) > ANSWER_BYTES:
        return None
    if origins is None or not result.streams:
        return encoded
    with_origins = dumps([encoded, origins.command, origins.credit, origins.note])
    return with_origins if len(with_origins) <= ANSWER_BYTES else encoded


def stored_result(answer: bytes) -> Result:
    """The result as it was stored."""
    found = loads(answer)
    (result,) = decode(found[0] if isinstance(found[0], bytes) else answer)
    assert isinstance(result, Result)
    return result


def stored_origins(answer: bytes) -> Origins | None:
    """Where its streams came from, if that was stored."""
    found = loads(answer)
    return Origins(*found[1:]) if isinstance(found[0], bytes) else None


def gone_streams(result: Result, made: Result | None = None) -> list[Reset]:
    """What goes out behind a stored result: its streams ended with the call, and whoever
    misses bytes of them will not get them any more. `made` has the error, if there is one, for
    which they could not be made anew."""
    error = CallError(
        Code.ANSWER_GONE, f"the streams of call {show(result.id)} have ended and are no longer kept"
    )
    if made is not None and made is not result and made.error is not None:
        error = error_from(made.error)
    return [reset_for(result.id, n, error.code, error.message) for n in result.streams]


def conflict(id: bytes) -> CallError:
    return CallError(
        Code.CONFLICT, f"call {show(id)} came before with another command or other arguments"
    )


def expired(id: bytes) -> CallError:
    return CallError(
        Code.EXPIRED_ID,
        f"call {show(id)} is older than what receipts remember: whether it ran is unknown",
        started=Started.UNKNOWN,
    )


def fenced(id: bytes) -> CallError:
    return CallError(Code.CANCELLED, f"call {show(id)} was cancelled before it came: it never ran")


def not_yours(id: bytes) -> CallError:
    return CallError(
        Code.FORBIDDEN,
        f"call {show(id)} came from somebody who may do more than watch",
        started=Started.UNKNOWN,
    )


def cancelled(id: bytes, *, started: Started) -> CallError:
    return CallError(Code.CANCELLED, f"call {show(id)} was cancelled", started=started)


def answer_gone(id: bytes) -> CallError:
    return CallError(
        Code.ANSWER_GONE,
        f"call {show(id)} ended; its answer is no longer kept",
        started=Started.YES,
    )


def outcome_unknown(id: bytes) -> CallError:
    return CallError(
        Code.OUTCOME_UNKNOWN,
        f"call {show(id)} had begun when the sidecar was restarted: how it ended is unknown",
        started=Started.UNKNOWN,
    )


def too_late(id: bytes, *, started: Started) -> CallError:
    return CallError(
        Code.TIMEOUT, f"call {show(id)} passed its deadline", started=started, which="deadline"
    )


def defect(*, started: Started) -> CallError:
    return CallError(Code.INTERNAL, "a defect of the sidecar; its log says more", started=started)


def first_of(group: BaseExceptionGroup[CallError]) -> CallError:
    """The first of the errors that a handler's task group collected."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, CallError)
    return error
