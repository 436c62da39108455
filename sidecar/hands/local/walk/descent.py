"""Down into directories and up again, with few descriptors however deep it goes.

Down is openat(2) of one name with O_NOFOLLOW. The descriptors of the last `HELD` levels stay open
for the way up; beyond those, up is `..`, and what that leads to must have the identity of the
directory we came through. If it has not (the directory below was moved), the way is taken again
from the top, name by name. So a directory is only ever entered through names that were not links
at that moment, and one that cannot be found again is `Lost`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from sidecar.hands.names import SELF, UP

HELD = 32  # descriptors; deeper trees are rare, and programs may start with a limit of 256
ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Identity = tuple[int, int]  # device and inode


class Lost(Exception):
    """A directory on the way up was moved or removed."""


@dataclass(slots=True)
class _Step:
    name: bytes  # of this directory, in the one above
    identity: Identity
    descriptor: int  # -1: not open at the moment


class Descent:
    """A stack of directories, the last of which is `here`. Owns the descriptors."""

    def __init__(self, top: int) -> None:
        """`top` is a directory's descriptor, which this closes at the end."""
        self._steps = [_Step(SELF, identity(os.fstat(top)), top)]

    @property
    def here(self) -> int:
        return self._steps[-1].descriptor

    @property
    def depth(self) -> int:
        """How many levels `here` lies below the top."""
        return len(self._steps) - 1

    def open_top(self) -> int:
        """Another descriptor of the first directory, which is the caller's."""
        return os.open(SELF, ENTER, dir_fd=self._steps[0].descriptor)

    def close(self) -> None:
        for step in self._steps:
            _close(step)

    def down(self, name: bytes, descriptor: int) -> None:
        """`here` is now its subdirectory `name`, open as `descriptor`, which this closes later."""
        self._steps.append(_Step(name, identity(os.fstat(descriptor)), descriptor))
        if len(self._steps) > HELD + 1:
            spare = self._steps[-HELD - 1]
            if spare is not self._steps[0]:  # from which everything else is found again
                _close(spare)

    def up(self) -> None:
        """`here` is now the directory above. Raises `Lost`, and then `up` goes on from there."""
        left = self._steps.pop()
        step = self._steps[-1]
        try:
            if step.descriptor < 0:
                step.descriptor = self._reopen(left, step)
        finally:
            _close(left)

    def _reopen(self, left: _Step, step: _Step) -> int:
        if left.descriptor >= 0:
            with suppress(OSError, Lost):
                return _checked(os.open(UP, ENTER, dir_fd=left.descriptor), step)
        return self._from_top()

    def _from_top(self) -> int:
        here = os.dup(self._steps[0].descriptor)
        for step in self._steps[1:]:
            try:
                below = os.open(step.name, ENTER, dir_fd=here)
            except OSError as error:
                raise Lost from error
            finally:
                os.close(here)
            here = _checked(below, step)
        return here


def identity(found: os.stat_result) -> Identity:
    """What tells one directory from another, as long as it is there."""
    return found.st_dev, found.st_ino


def _checked(descriptor: int, step: _Step) -> int:
    if identity(os.fstat(descriptor)) != step.identity:
        os.close(descriptor)
        raise Lost
    return descriptor


def _close(step: _Step) -> None:
    if step.descriptor >= 0:
        os.close(step.descriptor)
        step.descriptor = -1
