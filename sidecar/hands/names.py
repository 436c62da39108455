"""Paths as bytes, and what they say without asking the file system.

Linux names are bytes (path_resolution(7)). A `str` is UTF-8, with lone surrogates for bytes
that are not (PEP 383), whatever the locale of this process says: the other end of the wire
has another one.

A *relative* path here is what the rest of the package works with: names joined by single
slashes, no `.` but for the last one, which stands for a trailing slash ("it must be a
directory"), and `.` alone for the root itself. `..` stays, because only the file system knows
where it leads once links are followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sidecar.errors import Invalid, Outside, show_path
from sidecar.hands.interface import Path

PATH_MAX = 4095  # bytes of a path that the kernel takes, without the NUL
SELF = b"."
UP = b".."
PART_SUFFIX = b".sidecar-part"
PART_TOKENS = (12, 32)  # hexadecimal digits: of a write of one call, of an upload that has an id
KEPT_NAME = 64  # bytes of the target's name in that of its part: NAME_MAX is 143 on eCryptfs

_PART = re.compile(
    rb"\.(.*)\.(?:[0-9a-f]{%d}|[0-9a-f]{%d})" % PART_TOKENS + re.escape(PART_SUFFIX), re.DOTALL
)


def as_bytes(value: Path, what: str) -> bytes:
    """`value` for the kernel; raises `Invalid` naming `what` for a NUL and for lone surrogates."""
    try:
        encoded = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise Invalid(
            f"{what} {show_path(value)} has a surrogate that stands for no byte"
        ) from None
    if b"\0" in encoded:
        raise Invalid(f"{what} {show_path(value)} holds a NUL byte")
    return encoded


def relative(path: Path, roots: Sequence[bytes]) -> bytes:
    """`path` as seen from the root, whose absolute names are `roots`.

    An absolute path must begin with one of them, name by name; otherwise it is `Outside`.
    """
    encoded = as_bytes(path, "path")
    names = split(encoded)
    if encoded.startswith(b"/"):
        names = _strip_root(path, names, roots)
    joined = b"/".join(names) or SELF
    if len(joined) > PATH_MAX:
        raise Invalid(f"a path of {len(joined)} bytes: at most {PATH_MAX} allowed")
    return joined


def parent_and_name(relative_path: bytes) -> tuple[bytes, bytes, bool]:
    """The directory, the last name, and whether a slash followed it.

    The name is `.` for the root and `..` if the path ends so: neither is an entry.
    """
    names = relative_path.split(b"/")
    has_slash = len(names) > 1 and names[-1] == SELF
    if has_slash:
        names.pop()
    return b"/".join(names[:-1]) or SELF, names[-1], has_slash


def join(above: Path, below: bytes) -> Path:
    """The path of what lies at `below` in `above`, written as that is: text where it can be."""
    if not below:
        return above
    base = as_bytes(above, "path")
    joined = base.rstrip(b"/") + b"/" + below if base else below
    try:
        return joined.decode() if isinstance(above, str) else joined
    except UnicodeDecodeError:
        return joined


def part_name(name: bytes, token: bytes) -> bytes:
    """The name of the part file of `name`: `.NAME.TOKEN.sidecar-part`, the token in hexadecimal.
    NAME is cut between characters, because some file systems insist on UTF-8."""
    kept = name if len(name) <= KEPT_NAME else name[:KEPT_NAME].decode("utf-8", "ignore").encode()
    return b"." + kept + b"." + token.hex().encode() + PART_SUFFIX


def is_part(name: bytes) -> bool:
    """Whether a last name is that of a part: bytes of a file that is not there yet. Whoever walks
    through directories passes over them."""
    return name.endswith(PART_SUFFIX) and _PART.fullmatch(name) is not None


def split(path: bytes) -> list[bytes]:
    """The names in `path`; a slash at its end becomes a last `.`."""
    pieces = path.split(b"/")
    names = [name for name in pieces if name not in (b"", SELF)]
    if names and pieces[-1] in (b"", SELF):
        names.append(SELF)
    return names


def _strip_root(path: Path, names: list[bytes], roots: Sequence[bytes]) -> list[bytes]:
    for root in roots:
        prefix = split(root)
        if names[: len(prefix)] == prefix:
            rest = names[len(prefix) :]
            return [] if rest == [SELF] else rest
    raise Outside(path)
