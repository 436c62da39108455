"""Links that are made: a second name of a file, and symbolic ones, whose text is looked at first.

No link that leads out of its root is ever followed by us (`beneath`), but programs follow all of
them. So one that would lead out is not made unless it is asked for. That is about the moment when
it is made: what it passes through may be moved, or become a link itself, later.
"""

from __future__ import annotations

import errno
import os
import stat

from sidecar.errors import CallError, Code, Invalid, Outside
from sidecar.hands.fileinterface import Path
from sidecar.hands.local.beneath import Beneath, Place, coded, through_proc
from sidecar.hands.local.roots import Roots
from sidecar.hands.names import PATH_MAX, SELF, UP, as_bytes


def hard_link(roots: Roots, source: Path, target: Path) -> None:
    """A second name of a file, or of a symbolic link itself."""
    root = roots.of_both(source, target)
    with root.parent(source) as old, root.parent(target) as new:
        with coded(source):
            if stat.S_ISDIR(old.lstat().st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _check_no_slash(new)
        os.link(
            old.name,
            new.name,
            src_dir_fd=old.directory,
            dst_dir_fd=new.directory,
            follow_symlinks=False,
        )


def symbolic_link(roots: Roots, path: Path, text: Path, *, anywhere: bool) -> None:
    """A link at `path` that says `text`. Raises `Outside` for one that would lead out of its root,
    unless `anywhere`."""
    encoded = as_bytes(text, "target")
    if not 0 < len(encoded) <= PATH_MAX:
        raise Invalid(f"a link to {len(encoded)} bytes of path: 1 to {PATH_MAX} allowed")
    root = roots.of(path, write=True)
    with root.parent(path) as place:
        _check_no_slash(place)
        if not anywhere and leads_out(root, place.directory, encoded):
            raise Outside(text)
        os.symlink(encoded, place.name, dir_fd=place.directory)


def leads_out(root: Beneath, directory: int, text: bytes) -> bool:
    """Whether a link in `directory`, below `root`, that says `text` would lead out of it.

    An absolute one does: it is never followed, even where it would lead back in. Of one to what
    is not there yet, the names say it.
    """
    if text.startswith(b"/"):
        return True
    top, here = _name_of(root.root), _name_of(directory)
    if here != top and not here.startswith(top.rstrip(b"/") + b"/"):
        return True  # it was moved out
    above = [name for name in here[len(top) :].split(b"/") if name]
    try:
        os.close(root.resolve(b"/".join([*above, text])))
    except CallError as error:
        return error.code is Code.OUTSIDE or _climbs_out(len(above), text)
    return False


def _climbs_out(depth: int, text: bytes) -> bool:
    for name in text.split(b"/"):
        if name == UP:
            depth -= 1
        elif name not in (b"", SELF):
            depth += 1
        if depth < 0:
            return True
    return False


def _name_of(directory: int) -> bytes:
    return os.readlink(through_proc(directory).encode())


def _check_no_slash(place: Place) -> None:
    if place.has_slash:  # linkat(2) and symlinkat(2) are given the bare name, and would make it
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
