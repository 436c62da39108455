"""Asking a hands that is not trusted: one question, and an answer that fits it.

A reader turns what came into what was asked for, raising `ProtocolError` for anything else; the
connection then ends, and with it all that this hands might still send. Descriptors belong to
the result if there is one, and are closed if not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sidecar.errors import CallError, Code, ProtocolError, Started
from sidecar.hands.apart import messages
from sidecar.hands.apart.connection import Connection, Lost, Question
from sidecar.hands.apart.descriptors import check_end, check_file, check_pipe, check_socket, discard
from sidecar.hands.apart.outcomes import outcome_from
from sidecar.hands.interface import Exit, FileStat, Running
from sidecar.protocol.fields import is_bool, is_uint

QUICK_TIME = 10.0  # seconds for what only asks the kernel
STREAMS = ("stdin", "stdout", "stderr", "control")  # of a program, in the order that they travel

T = TypeVar("T")
Read = Callable[[Question], T]


async def ask_or_lose(
    connection: Connection,
    method: str,
    arguments: Mapping[str, Any],
    read: Read[T],
    time: float | None,
    undo: Callable[[Any], None] | None = None,
) -> T:
    """Ask; see `Connection.ask`. Raises `Lost` besides `CallError`."""
    question = await connection.ask(method, arguments, time=time, undo=undo)
    return read_answer(connection, question, read)


def read_answer(connection: Connection, question: Question, read: Read[T]) -> T:
    """What a settled question brought. Raises `CallError` or `Lost`."""
    connection.answer(question)
    try:
        return read(question)
    except ProtocolError as error:
        discard(question.descriptors)
        connection.end(f"it broke the protocol: {error}")
        raise CallError(
            Code.HANDS_AWAY, f"hands broke the protocol: {error}", started=Started.UNKNOWN
        ) from None


async def ask(
    connection: Connection,
    method: str,
    arguments: Mapping[str, Any],
    read: Read[T],
    time: float,
    undo: Callable[[Any], None] | None = None,
) -> T:
    """Ask once: a lost answer is `hands_away`, and nobody knows whether it was done."""
    try:
        return await ask_or_lose(connection, method, arguments, read, time, undo)
    except Lost as error:
        raise CallError(
            Code.HANDS_AWAY,
            f"the connection to hands was lost: {error}",
            started=Started.UNKNOWN,
        ) from None


# Readers ----------------------------------------------------------------------------------


def read_nothing(question: Question) -> None:
    _descriptors(question, 0)


def read_number(question: Question) -> int:
    _descriptors(question, 0)
    return _number(question.value)


def read_stat(question: Question) -> FileStat:
    _descriptors(question, 0)
    return messages.stat_from(question.value)


def read_part(question: Question) -> FileStat | None:
    _descriptors(question, 0)
    return None if question.value is None else messages.stat_from(question.value)


def read_flag(question: Question) -> bool:
    _descriptors(question, 0)
    if not is_bool(question.value):
        raise ProtocolError("yes or no was expected from hands, and it sent something else")
    return bool(question.value)


def read_exit(question: Question) -> Exit:
    _descriptors(question, 0)
    return messages.exit_from(question.value)


def read_file(question: Question) -> int:
    """A descriptor of a regular file."""
    [fd] = _descriptors(question, 1)
    check_file(fd)
    return fd


def read_end(question: Question) -> int:
    """A descriptor that writes at the end of a regular file."""
    [fd] = _descriptors(question, 1)
    check_end(fd)
    return fd


def read_upload(question: Question) -> tuple[int, int]:
    """The number of an upload, and its part."""
    [fd] = _descriptors(question, 1)
    check_file(fd, writable=True)
    return _number(question.value), fd


def read_tool(question: Question, *, core_writes: bool) -> tuple[int, int]:
    """The number of a tool, and core's end of its pipe."""
    [fd] = _descriptors(question, 1)
    check_pipe(fd, writable=core_writes)
    return _number(question.value), fd


def read_outcome(question: Question) -> dict[str, Any]:
    """What a tool has to say at its end."""
    _descriptors(question, 0)
    return outcome_from(question.value)


def read_running(question: Question, expected: set[str] | None = None) -> Running:
    """A program with the `expected` streams; None: one of which we do not know how it began."""
    value = question.value
    if type(value) is not list or len(value) != 3 or type(value[2]) is not list:
        raise ProtocolError("a program was expected from hands, and it sent something else")
    pid, start_time, names = value
    if not messages.are_numbers_of_process(pid, start_time):
        raise ProtocolError("a process was expected from hands, and it sent something else")
    if names != [name for name in STREAMS if name in names] or "stdout" not in names:
        raise ProtocolError("streams that no program has")
    if expected is not None and set(names) != expected:
        raise ProtocolError("other streams than the program was to have")
    found = dict(zip(names, _descriptors(question, len(names)), strict=True))
    for name, fd in found.items():
        if name == "control":
            check_socket(fd)
        else:
            check_pipe(fd, writable=name == "stdin")
    stdin, stderr, control = found.get("stdin"), found.get("stderr"), found.get("control")
    return Running(pid, start_time, stdin, found["stdout"], stderr, control)


def _descriptors(question: Question, count: int) -> list[int]:
    if len(question.descriptors) != count:
        raise ProtocolError(f"{len(question.descriptors)} descriptors, {count} expected")
    return question.descriptors


def _number(value: Any) -> int:
    if not is_uint(value):
        raise ProtocolError("a number was expected from hands, and it sent something else")
    number: int = value
    return number
