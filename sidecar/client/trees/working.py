"""What both ways of copying a tree need: several things at a time, and what an error ends."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable

import anyio

from sidecar.client.trees.entries import Node, Problem
from sidecar.client.trees.telling import Teller
from sidecar.errors import CallError, Code

AT_ONCE = 4  # calls with bytes: enough to fill a window while others wait for their answers
LOOKS = 64  # entries that one hop to a thread looks after

Job = Callable[[], Awaitable[None]]

# What is wrong with one entry. Everything else would be so with the next one, too.
_OF_ONE = {
    Code.PERMISSION_DENIED,
    Code.OUTSIDE,
    Code.NOT_FOUND,
    Code.EXISTS,
    Code.IS_DIRECTORY,
    Code.NOT_DIRECTORY,
    Code.NOT_EMPTY,
    Code.INVALID,
    Code.LIMIT,
    Code.UNSUPPORTED,
    Code.CONFLICT,
    Code.PRECONDITION_FAILED,
    Code.DIGEST_MISMATCH,
    Code.SOURCE_CHANGED,
    Code.IO_ERROR,
    Code.INTERNAL,
}
_OF_ALL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}


def is_of_one(error: CallError | OSError) -> bool:
    """Whether other entries may still be copied."""
    if isinstance(error, CallError):
        return error.code in _OF_ONE
    return error.errno not in _OF_ALL


def problem_of(path: bytes, error: CallError | OSError) -> Problem:
    """`error` as one of an entry; raised if it is none of one entry."""
    if not is_of_one(error):
        raise error
    if isinstance(error, CallError):
        return Problem(path, f"{error.code}: {error.message}")
    return Problem(path, error.strerror or str(error))


def attempt(node: Node, work: Callable[[Node], None]) -> Problem | Node:
    """Do something to an entry, in a thread: the entry, or what was wrong with it."""
    try:
        work(node)
    except (CallError, OSError) as error:
        return problem_of(node.path, error)
    return node


class Told:
    """Passes on what a teller is to know, and counts the problems."""

    def __init__(self, teller: Teller) -> None:
        self.teller = teller
        self.problems = 0
        self.files = 0
        self.bytes = 0

    def problem(self, problem: Problem) -> None:
        self.problems += 1
        self.teller.problem(problem)

    def problems_of(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.problem(problem)

    def copied(self, path: bytes, size: int) -> None:
        self.files += 1
        self.bytes += size
        self.teller.copied(path)


async def in_parallel(jobs: Iterable[Job]) -> None:
    """All jobs, `AT_ONCE` of them at a time. The first error ends them all, and is raised as it
    is, in no group."""
    waiting = iter(jobs)
    failure: Exception | None = None

    async def work() -> None:
        nonlocal failure
        try:
            for job in waiting:
                await job()
        except Exception as error:
            failure = failure or error
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(work)
    if failure is not None:
        raise failure
