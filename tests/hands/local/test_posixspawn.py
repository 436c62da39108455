"""Children of the C library: what they have, where they are, and what they do not inherit."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.hands.local import posixspawn as module
from sidecar.hands.local.posixspawn import posix_spawn

ENVIRONMENT = {b"PATH": b"/usr/bin:/bin", b"A": b"\xff"}


@pytest.fixture(
    params=[
        pytest.param((), id="all-actions"),
        pytest.param(("_HAS_CLOSEFROM",), id="no-closefrom"),
        pytest.param(("_HAS_CLOSEFROM", "_HAS_FCHDIR"), id="no-fchdir"),
    ]
)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a new C library, and of the two kinds of old ones."""
    for name in request.param:
        monkeypatch.setattr(module, name, False)


@pytest.fixture
def folder(root: Path) -> Iterator[int]:
    descriptor = os.open(root, os.O_PATH | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def output_of(folder: int, executable: str, *argv: str | bytes) -> bytes:
    """What it prints; its standard input is /dev/null, and it has no fourth descriptor."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = posix_spawn(
            executable.encode(),
            [word.encode() if isinstance(word, str) else word for word in argv],
            ENVIRONMENT,
            directory=folder,
            files=[b"/dev/null", writer, writer],
        )
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    with open(reader, "rb") as file:
        content = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return content


@pytest.mark.usefixtures("library")
def test_a_child_has_what_it_was_given(folder: int, root: Path) -> None:
    code = b'pwd; printf "%s|" "$A" "$@"; ls -1 /proc/self/fd | wc -l; readlink /proc/self/fd/0'
    content = output_of(folder, "/bin/sh", "sh", "-c", code, "sh", "a b", b"\xfe", "")
    # The fourth descriptor is the one by which `ls` reads the folder.
    assert content == b"%s\n\xff|a b|\xfe||4\n/dev/null\n" % bytes(root)


@pytest.mark.usefixtures("library")
def test_a_child_leads_a_session(folder: int) -> None:
    content = output_of(folder, "/bin/sh", "sh", "-c", "echo $$; ps -o sid=,pgid= -p $$")
    assert len(set(content.split())) == 1


@pytest.mark.usefixtures("library")
def test_a_relative_program_is_found_in_its_directory(folder: int, root: Path) -> None:
    (root / "here").write_text("#!/bin/sh\necho here\n")
    (root / "here").chmod(0o755)
    assert output_of(folder, "./here", "./here") == b"here\n"


@pytest.mark.usefixtures("library")
def test_what_we_can_pass_on_is_not(folder: int) -> None:
    inheritable = os.dup(folder)
    os.set_inheritable(inheritable, True)
    try:
        content = output_of(folder, "/bin/ls", "ls", "-1", "/proc/self/fd")
    finally:
        os.close(inheritable)
    assert content == b"0\n1\n2\n3\n"  # 3 is the folder that `ls` reads


@pytest.mark.usefixtures("library")
def test_signals_have_their_default_actions_and_none_is_blocked(folder: int) -> None:
    numbers = [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        status = output_of(folder, "/bin/cat", "cat", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        for number, action in before.items():
            signal.signal(number, action)
    fields = dict(line.split(b":\t", 1) for line in status.splitlines() if b":\t" in line)
    assert int(fields[b"SigBlk"], 16) == 0
    # glibc leaves its own two, 32 and 33, ignored.
    assert int(fields[b"SigIgn"], 16) & ~(0b11 << 31) == 0


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    "name, number",
    [("missing", errno.ENOENT), ("plain", errno.EACCES), ("folder", errno.EACCES)],
)
def test_what_cannot_be_run_leaves_no_child(
    folder: int, root: Path, name: str, number: int
) -> None:
    (root / "plain").touch(0o644)
    (root / "folder").mkdir()
    with pytest.raises(OSError) as caught:
        output_of(folder, name, name)
    assert caught.value.errno == number
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_path_that_is_given_twice_is_opened_once(folder: int, root: Path) -> None:
    (root / "out").touch()
    code = b"echo one; echo two >&2"
    files = [b"/dev/null", b"out", b"out"]
    pid = posix_spawn(b"/bin/sh", [b"sh", b"-c", code], {}, directory=folder, files=files)
    assert os.waitpid(pid, 0)[1] == 0
    assert (root / "out").read_bytes() == b"one\ntwo\n"


def test_a_process_without_standard_files_spawns_too(root: Path) -> None:
    """Then our own descriptors have the numbers that the child's will get."""
    code = (
        "import os, sys\n"
        "from sidecar.hands.local.posixspawn import posix_spawn\n"
        "pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]\n"
        "assert pipes == [(0, 1), (2, 3)]\n"
        "folder = os.open(sys.argv[1], os.O_PATH | os.O_CLOEXEC)\n"
        "files = [b'/dev/null', pipes[1][1], pipes[0][1]]\n"
        "argv = [b'sh', b'-c', b'echo out; echo err >&2']\n"
        "pid = posix_spawn(b'/bin/sh', argv, {}, directory=folder, files=files)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert [os.read(pipe[0], 9) for pipe in pipes] == [b'err\\n', b'out\\n']\n"
    )
    script = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    subprocess.run(["/bin/sh", "-c", script, sys.executable, code, root], check=True)
