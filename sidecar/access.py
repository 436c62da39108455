"""Why a file or a folder is not ours to use, in words that say what to change.

The kernel answers EACCES and no more. Whoever mounted a secret or a volume needs to know which
identity tried, and what is in its way.
"""

from __future__ import annotations

import errno
import os
import stat


def problem_of_folder(path: str | os.PathLike[str]) -> str | None:
    """Why nobody can work below the folder `path` as we are; None if we can read it."""
    if not os.path.isdir(path):  # it says no, too, where we may not look
        return "not a folder; make it or name another"
    if not os.access(path, os.R_OK | os.X_OK):
        return f"we may not read it: {owner_of(path)}; give us the right, or name another folder"
    return None


def problem_of_writing(path: str | os.PathLike[str]) -> str | None:
    """Why nothing can be made in the folder `path`; None if we may."""
    if os.access(path, os.W_OK | os.X_OK):
        return None
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "it is on a read-only file system: mount it for writing, if anything shall change"
    return f"{owner_of(path)}: change its owner or mode, if anything shall change"


def sentence(path: str | os.PathLike[str], error: OSError) -> str:
    """Why `path`, a file that was to be read, could not be, and what to do."""
    if isinstance(error, FileNotFoundError):
        return "no such file; write it or mount it there"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, as engines make where what is to be mounted is not; name the file"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{error.strerror}: {owner_of(path)}; let us read it"
    return error.strerror or str(error)


def owner_of(path: str | os.PathLike[str]) -> str:
    """Whose `path` is, or of the nearest folder above it that can be looked at; and who we are."""
    path = os.path.abspath(path)
    while True:
        try:
            found = os.stat(path)
            break
        except OSError:
            above = os.path.dirname(path)
            if above == path:
                return f"we are uid {os.geteuid()}"
            path = above
    mode = stat.S_IMODE(found.st_mode)
    return (
        f"{path} has mode {mode:04o} and belongs to {found.st_uid}:{found.st_gid},"
        f" we are {os.geteuid()}:{os.getegid()}"
    )
