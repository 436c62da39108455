"""Users and groups as /etc/passwd and /etc/group have them: passwd(5), group(5).

Read here, as container runtimes do, and not asked for by getpwnam(3): that may load libraries of
the image's own libc into this process, which is root and has a libc of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_ID = 2**32 - 2  # the last one means "no change" (chown(2))
PASSWD = "/etc/passwd"
GROUP = "/etc/group"


class UnknownUser(Exception):
    """There is no such user; the sentence says what was expected."""


class Account:
    """Who a process is. `name` and `home` are what a login would set."""

    def __init__(self, uid: int, gid: int, groups: list[int], name: str, home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.name = name
        self.home = home


def find_account(text: str, *, passwd: str = PASSWD, group: str = GROUP) -> Account:
    """`NAME` or `UID`, and `:GID` behind. Raises `UnknownUser`.

    A user that /etc/passwd does not know has the group of the same number: never 0, as a
    container runtime would have it. A group that is named is the only one.
    """
    user, colon, group_text = text.partition(":")
    found = _find_user(user, passwd)
    if found is None and not _is_id(user):
        raise UnknownUser(f"{user!r} is no user in {passwd}: name one, or a number")
    name, uid, gid, home = found or (user, int(user), int(user), "/")
    if not colon:
        return Account(uid, gid, [gid, *_groups_of(name, group, but=gid)], name, home)
    if not _is_id(group_text):
        raise UnknownUser(f"{group_text!r} is no group: a number expected")
    return Account(uid, int(group_text), [int(group_text)], name, home)


def _find_user(user: str, passwd: str) -> tuple[str, int, int, str] | None:
    """Name, uid, gid, home of the first one of that name or number."""
    for name, _, uid, gid, _, home, *_ in _entries(passwd, 7):
        if user in (name, uid) and _is_id(uid) and _is_id(gid):
            return name, int(uid), int(gid), home or "/"
    return None


def _groups_of(name: str, group: str, *, but: int) -> list[int]:
    """Those that have `name` among their members."""
    return [
        int(gid)
        for _, _, gid, members in _entries(group, 4)
        if name in members.split(",") and _is_id(gid) and int(gid) != but
    ]


def _entries(path: str, fields: int) -> Iterator[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:  # as in an image that is made of one program
        return
    for line in lines:
        entry = line.split(":")
        if len(entry) == fields:
            yield entry


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_ID
