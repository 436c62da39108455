"""The folder of this user for sockets and for what need not outlive a boot.

It is `$XDG_RUNTIME_DIR/sidecar` (XDG Base Directory Specification), or `/tmp/sidecar-<uid>`. In
/tmp anybody may make a folder of that name first, and could exchange what we put there; so such
a folder is used only if it is ours, alone (0700), and no link. From then on the sticky bit of
/tmp keeps it ours.

No third-party imports: `sidecar health` starts with this.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

SOCKET_PATH_BYTES = 107  # unix(7): sun_path has 108, one of them ends it

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def runtime_folder() -> Path:
    """Where it is; `make_private` makes it."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "sidecar" if base else Path(f"/tmp/sidecar-{os.geteuid()}")


def make_private(folder: Path, *, follow: bool = False) -> None:
    """Make `folder` if needed, and nobody's but ours. Raises `OSError`: `strerror` says what is
    wrong with it. With `follow` it may be a link to such a folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder, _OPEN if follow else _OPEN | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            why = f"belongs to uid {found.st_uid}, we are {os.geteuid()}"
            raise PermissionError(errno.EPERM, why, str(folder))
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
