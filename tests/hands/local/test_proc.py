from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from sidecar.hands.local import proc
from sidecar.hands.local.proc import (
    group_exists,
    has_pidfds,
    read_all,
    read_children,
    read_process,
    read_variable,
    send,
)

NOBODY = 2**22 + 1  # above the highest pid there can be (proc(5), pid_max)


def test_a_name_with_spaces_and_parentheses_is_no_trouble() -> None:
    code = "open('/proc/self/comm', 'w').write('a) Z (1 2'); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, start_new_session=True
    ) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            found = read_process(child.pid)
            assert found is not None
            assert (found.name, found.parent) == (b"a) Z (1 2", os.getpid())
            assert (found.pid, found.session, found.group) == (child.pid, child.pid, child.pid)
            assert read_all()[child.pid].start_time == found.start_time
            assert child.pid in (read_children() or ())
        finally:
            child.kill()


def test_there_is_nothing_to_read_without_a_process() -> None:
    assert read_process(NOBODY) is None
    assert read_variable(NOBODY, b"PATH") is None
    assert not group_exists(NOBODY)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"], start_new_session=True)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    found = read_process(child.pid)
    assert found is not None
    assert (found.state, found.is_alive) == (b"Z", False)
    assert read_variable(child.pid, b"PATH") is None
    assert group_exists(child.pid)
    child.wait()
    assert not group_exists(child.pid)


def test_what_runs_on_without_its_first_thread_is_alive() -> None:
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=[60]).start()\n"
        "print(flush=True)\n"
        "ctypes.CDLL(None).syscall(60 if __import__('os').uname().machine == 'x86_64' else 93, 0)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        while (found := read_process(child.pid)) and found.state != b"Z":
            pass
        assert found is not None
        assert found.is_alive
        assert send(found, signal.SIGKILL)


def test_a_variable_is_read_from_another_process() -> None:
    environment = {"X_MARK": "no", "MARK": "1=2", "LONG": "x" * 100_000, "LAST": ""}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env=environment) as child:
        assert read_variable(child.pid, b"MARK") == b"1=2"
        assert read_variable(child.pid, b"LAST") == b""
        assert read_variable(child.pid, b"ARK") is None


@pytest.mark.parametrize("with_pidfds", [True, False])
def test_a_later_owner_of_a_pid_is_never_signalled(
    monkeypatch: pytest.MonkeyPatch, with_pidfds: bool
) -> None:
    if not with_pidfds:
        monkeypatch.setattr(os, "pidfd_open", refused)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        found = read_process(child.pid)
        assert found is not None
        earlier = replace(found, start_time=found.start_time - 1)
        assert not send(earlier, signal.SIGKILL)
        assert child.poll() is None
        assert send(found, signal.SIGSTOP, signal.SIGKILL)
        assert child.wait() == -9
        assert not send(found, signal.SIGKILL)


def test_a_filter_without_pidfds_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_pidfds()
    monkeypatch.setattr(os, "pidfd_open", refused)
    assert not has_pidfds()


def test_a_kernel_without_lists_of_children_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "_read", lambda *_: None)  # CONFIG_PROC_CHILDREN is off
    assert read_children() is None


def refused(pid: int) -> int:
    raise PermissionError(1, "Operation not permitted")
