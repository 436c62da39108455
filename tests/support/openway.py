"""Lets other users come to our interpreter and package: `unshare --mount python openway.py HOLD
COMMAND...` runs COMMAND, for which no folder on the way to them is closed.

They may lie in root's home. What has to be reached is bound aside in HOLD, an empty folder; each
closed folder on the way gets an open and empty one over it; then what was held is moved back to
where it was. All of that in the mount namespace we were started in (mount_namespaces(7)), which
has to be a new one.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from pathlib import Path

MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000
ROOT = Path(__file__).parents[2]
NEEDED = {Path(sys.base_prefix), Path(sys.prefix), ROOT}

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str | Path, target: str | Path, kind: str, flags: int, options: str = "") -> None:
    words = [os.fsencode(word) for word in (source, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(target))


def closed_above(path: Path) -> Path | None:
    """The first folder on the way to `path` through which others may not go."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None


def open_way(hold: Path) -> None:
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    held = {path: closed for path in NEEDED if (closed := closed_above(path)) is not None}
    mount("none", hold, "tmpfs", 0)
    for number, path in enumerate(held):
        (hold / str(number)).mkdir()
        mount(path, hold / str(number), "", MS_BIND | MS_REC)
    for closed in set(held.values()):
        mount("none", closed, "tmpfs", 0, "mode=755")
    for number, path in enumerate(held):
        path.mkdir(parents=True, exist_ok=True)
        mount(hold / str(number), path, "", MS_MOVE)


if __name__ == "__main__":
    os.umask(0o022)
    open_way(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
