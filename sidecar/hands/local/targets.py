"""Where a file is or will be, if its path may end in a link: the place that the link leads to."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.errors import CallError, Code, Outside, from_os_error, show_path
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import MAX_LINKS, Beneath, Place, coded
from sidecar.hands.names import parent_and_name


@contextmanager
def target_of(root: Beneath, path: Path) -> Iterator[Place]:
    """The place of the regular file that `path` names, beneath `root`; it need not exist. Links
    are followed, also those that point to nothing yet. In the block an `OSError` is about `path`.
    """
    where: Path = path
    for _ in range(MAX_LINKS + 1):
        with root.parent(where, about=path) as place, coded(path):
            link = _link_target(place)
            if link is None:
                _check_target(path, place)
                yield place
                return
        if link.startswith(b"/"):
            raise Outside(path)
        directory, _name, _slash = parent_and_name(root.relative(where))
        where = directory + b"/" + link
    raise from_os_error(OSError(errno.ELOOP, os.strerror(errno.ELOOP)), path)


def _link_target(place: Place) -> bytes | None:
    try:
        return os.readlink(place.name, dir_fd=place.directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # no link
            return None
        raise


def _check_target(path: Path, place: Place) -> None:
    if place.has_slash:
        raise CallError(Code.IS_DIRECTORY, f"{show_path(path)} names a directory", path=path)
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise CallError(Code.UNSUPPORTED, f"{show_path(path)} is no regular file", path=path)
