from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sidecar.hands.sessions import group_exists, has_pidfds, members, read_member


def test_a_name_with_spaces_and_parentheses_is_no_trouble() -> None:
    code = "open('/proc/self/comm', 'w').write('a) Z (1 2'); input()"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            found = read_member(child.pid)
            assert found is not None
            assert (found.pid, found.session, found.group) == (child.pid, child.pid, child.pid)
        finally:
            child.kill()


def test_there_is_no_member_without_a_process() -> None:
    assert read_member(2**22 + 1) is None
    assert not group_exists(2**22 + 1)


def test_a_zombie_is_no_living_member() -> None:
    child = subprocess.Popen(["true"], start_new_session=True)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    found = read_member(child.pid)
    assert found is not None
    assert found.state == b"Z"
    assert members(child.pid, leader_reaped=False) == []
    assert group_exists(child.pid)
    child.wait()
    assert not group_exists(child.pid)


def test_a_session_whose_leader_came_back_is_a_strangers() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True) as child:
        assert [m.pid for m in members(child.pid, leader_reaped=False)] == [child.pid]
        # We say that the leader was reaped, yet a process has its pid: not ours then.
        assert members(child.pid, leader_reaped=True) == []


def test_a_filter_without_pidfds_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert not has_pidfds()
