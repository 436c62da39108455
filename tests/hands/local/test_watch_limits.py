"""Where the kernel watches no more, and where we may not look: as another user, or in a user
namespace of its own, whose limits are nobody else's (user_namespaces(7))."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

import sidecar

pytestmark = pytest.mark.optional  # what it needs, no install gives

HERE = Path(sidecar.__path__[0]).parent
IN_NAMESPACE = ("unshare", "--user", "--map-root-user")
NOBODY = 65534


def run(code: str, folder: Path, *, before: str = "") -> str:
    """What `code` prints in a namespace of its own, after the shell command `before`."""
    probe = subprocess.run(
        [*IN_NAMESPACE, "sh", "-c", "test -w /proc/sys/user/max_inotify_watches"], check=False
    )
    if probe.returncode != 0:
        pytest.skip("no user namespaces here")
    python = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    done = subprocess.run(
        [*IN_NAMESPACE, "sh", "-c", f'{before}; exec "$@"', "sh", *python],
        env={"PYTHONPATH": f"{HERE}:{HERE}/tests/support", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_limit_on_watches_is_one_error_that_says_what_to_do(root: Path) -> None:
    for number in range(20):
        (root / str(number)).mkdir()
    code = """
        import sys
        from watchers import watching
        from sidecar.errors import CallError
        try:
            with watching(sys.argv[1]):
                pass
        except CallError as error:
            print(error.code, error.details["setting"], error.message)
    """
    said = run(code, root, before="echo 10 > /proc/sys/user/max_inotify_watches")
    assert said.startswith("limit fs.inotify.max_user_watches this user has as many inotify watch")
    assert "exclude folders" in said


def test_a_limit_that_is_reached_later_ends_the_watch(root: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from watchers import watching
        from sidecar.errors import CallError
        with watching(sys.argv[1]) as watcher:
            for number in range(20):
                (Path(sys.argv[1]) / str(number)).mkdir()
            try:
                watcher.read_all()
            except CallError as error:
                print(error.code)
    """
    assert run(code, root, before="echo 10 > /proc/sys/user/max_inotify_watches") == "limit\n"


def test_a_limit_on_instances_is_named(root: Path) -> None:
    code = """
        import sys
        from watchers import watching
        from sidecar.errors import CallError
        try:
            with watching(sys.argv[1]):
                pass
        except CallError as error:
            print(error.code, error.details["setting"])
    """
    said = run(code, root, before="echo 0 > /proc/sys/user/max_inotify_instances")
    assert said == "limit fs.inotify.max_user_instances\n"


UNREADABLE = """
import os, sys
from pathlib import Path
from watchers import watching
root = Path(sys.argv[1])
with watching(root):
    pass  # all that is needed is loaded
os.setgroups([])
os.setresgid({uid}, {uid}, {uid})
os.setresuid({uid}, {uid}, {uid})
with watching(root) as watcher:
    print(watcher.batches())
    (root / "closed").chmod(0o700)
    print(sorted(watcher.told()))
    (root / "closed/y").touch()
    print(sorted(watcher.told()))
    (root / "open").chmod(0)
    print(sorted(watcher.told()))
    (root / "open").chmod(0o700)
    (root / "open/x").touch()
    print(sorted(watcher.told()))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_directory_that_may_not_be_read_is_told_and_watched_once_it_may() -> None:
    with tempfile.TemporaryDirectory(prefix="watch-") as name:
        _check_unreadable(Path(name))


def _check_unreadable(root: Path) -> None:
    for name in ("closed", "open"):
        (root / name).mkdir()
        os.chown(root / name, NOBODY, NOBODY)
    (root / "closed/x").touch()
    (root / "closed").chmod(0)
    os.chown(root, NOBODY, NOBODY)
    done = subprocess.run(
        [sys.executable, "-c", UNREADABLE.format(uid=NOBODY), str(root)],
        env={"PYTHONPATH": f"{HERE}:{HERE}/tests/support"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[{'lost': 'unreadable', 'paths': [b'closed']}]",
        "['+closed/x', '~closed/']",
        "['+closed/y']",
        "['~open/']",
        "['+open/x', '~open/']",
    ]
