"""Users and groups, from files like /etc/passwd and /etc/group."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.supervisor.accounts import Account, UnknownUser, find_account

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
broken
node:x:1000:1001::/home/node:/bin/bash
homeless:x:1002:1002:::
odd:x:many:1002::/:/bin/sh
+nis::::::
"""
GROUP = """\
root:x:0:
node:x:1001:node
docker:x:998:other,node
audio:x:29:nodejs
none:x:x:node
"""


def find(text: str, folder: Path) -> tuple[int, int, list[int], str, str]:
    (folder / "passwd").write_text(PASSWD)
    (folder / "group").write_text(GROUP)
    found = find_account(text, passwd=str(folder / "passwd"), group=str(folder / "group"))
    assert isinstance(found, Account)
    return found.uid, found.gid, found.groups, found.name, found.home


@pytest.mark.parametrize(
    "text, wanted",
    [
        pytest.param("node", (1000, 1001, [1001, 998], "node", "/home/node"), id="name"),
        pytest.param("1000", (1000, 1001, [1001, 998], "node", "/home/node"), id="known number"),
        pytest.param("node:7", (1000, 7, [7], "node", "/home/node"), id="that group alone"),
        pytest.param("10002", (10002, 10002, [10002], "10002", "/"), id="unknown number"),
        pytest.param("10002:5", (10002, 5, [5], "10002", "/"), id="unknown number and group"),
        pytest.param("homeless", (1002, 1002, [1002], "homeless", "/"), id="no home"),
        pytest.param("root", (0, 0, [0], "root", "/root"), id="root"),
    ],
)
def test_who_is_meant(text: str, wanted: object, tmp_path: Path) -> None:
    assert find(text, tmp_path) == wanted


@pytest.mark.parametrize(
    "text, words",
    [
        ("nobody-here", "'nobody-here' is no user in "),
        ("", "'' is no user in "),
        ("-1", "'-1' is no user in "),
        ("4294967295", "'4294967295' is no user in "),
        ("1" * 5000, "is no user in "),
        ("odd", "'odd' is no user in "),
        ("node:staff", "'staff' is no group: a number expected"),
        ("node:", "'' is no group: a number expected"),
    ],
)
def test_who_is_nobody(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownUser, match=words):
        find(text, tmp_path)


def test_an_image_without_passwd_has_numbers_only(tmp_path: Path) -> None:
    missing = {"passwd": str(tmp_path / "passwd"), "group": str(tmp_path / "group")}
    assert find_account("10001", **missing).groups == [10001]
    with pytest.raises(UnknownUser, match="'node' is no user in"):
        find_account("node", **missing)
