"""Copies a self-contained folder into a directory, which may be the root of a volume.

The file `.build` makes a directory such a folder: it has the digest of all the rest, or nothing
while a copy is being made. The order keeps two promises, whenever a copy is killed:

- `bin`, and with it the program, is in a directory only together with all else of the same build:
  it goes first and comes last.
- A digest in `.build` means that all of it is on the disk, also after a power cut (syncfs(2)).

The root of a volume cannot be renamed, so what is in it is: copied beside, then moved in.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BUILD = ".build"
PARTS = ("lib", "libexec", "share", "bin")  # in the order in which they come
_INCOMING, _OUTGOING = ".incoming", ".outgoing"
_OF_VOLUMES = {"lost+found"}  # mkfs.ext4(8) makes it
_PATIENCE = 1.0  # seconds between words about how far it is


class NotOurs(Exception):
    """The directory has something in it that no copy put there."""


class Busy(Exception):
    """Another copy into the directory goes on."""


def build_of(folder: Path) -> str | None:
    """The digest of what is in `folder`; nothing if that is no such folder, or not whole."""
    try:
        return (folder / BUILD).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def copy_folder(source: Path, target: Path, tell: Callable[[str], None]) -> bool:
    """Make `target` the same build as `source`, which is one; whether there was anything to do.

    Raises `NotOurs`, `Busy` and `OSError`. After the last of these, a further try goes on from
    what the directory is then.
    """
    build = build_of(source)
    assert build is not None
    if source.resolve() in target.resolve().parents:
        raise NotOurs(f"{target} is inside of what is to be copied")
    target.mkdir(parents=True, exist_ok=True)
    with _alone_in(target) as fd:
        if build_of(target) == build:
            return False
        _check_ours(target)
        (target / BUILD).write_text("")
        _remove_leftovers(target)
        try:
            _copy(source, target / _INCOMING, tell)
            _exchange(target)
        finally:
            _remove_leftovers(target)
        _sync(fd)
        (target / BUILD).write_text(f"{build}\n")
    return True


@contextmanager
def _alone_in(target: Path) -> Iterator[int]:
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another `sidecar install` is at work in {target}") from None
        yield fd
    finally:
        os.close(fd)


def _check_ours(target: Path) -> None:
    """`sidecar install /usr` shall not take /usr/bin away."""
    there = set(os.listdir(target))
    if BUILD not in there and (foreign := sorted(there - _OF_VOLUMES)):
        raise NotOurs(
            f"{target} has other things in it ({foreign[0]!r}): name an empty directory, or one"
            " that `sidecar install` made"
        )


def _copy(source: Path, incoming: Path, tell: Callable[[str], None]) -> None:
    """All parts, with the modes that they have, whatever the umask is. No links are in them."""
    done, next_word = 0, time.monotonic() + _PATIENCE

    def copy_file(from_: str, to: str) -> str:
        nonlocal done, next_word
        shutil.copy(from_, to)
        done += 1
        if time.monotonic() >= next_word:
            next_word += _PATIENCE
            tell(f"{done} files copied ...")
        return to

    incoming.mkdir()
    for part in PARTS:
        shutil.copytree(source / part, incoming / part, copy_function=copy_file)


def _exchange(target: Path) -> None:
    (target / _OUTGOING).mkdir()
    for part in reversed(PARTS):
        with suppress(FileNotFoundError):
            (target / part).rename(target / _OUTGOING / part)
    for part in PARTS:
        (target / _INCOMING / part).rename(target / part)


def _remove_leftovers(target: Path) -> None:
    for name in (_INCOMING, _OUTGOING):
        with suppress(FileNotFoundError):
            shutil.rmtree(target / name)


def _sync(fd: int) -> None:
    """The file system of `fd` and no other: os.sync() would wait for all disks of the machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(ctypes.c_int(fd)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
