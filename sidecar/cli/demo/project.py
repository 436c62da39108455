"""A real project goes into the workspace: a git repository with tests, made here for the demo.

It is made with the user's git, but with none of the user's git settings, and it travels file by
file as any folder would. In the sandbox git itself then says whether it arrived whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from sidecar.cli.demo.child import DemoError
from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage

NAME = "growth"  # of the project, and of its folder in the workspace

_README = "# growth\n\nReads the lines of a file while it still grows.\n"

_MODULE = '''"""Lines of a file that somebody is still writing."""

import time


def follow(path, end, patience=5.0):
    """Yield complete lines until the line `end`; raise TimeoutError after `patience` seconds."""
    deadline = time.monotonic() + patience
    rest = ""
    with open(path) as file:
        while time.monotonic() < deadline:
            rest += file.read()
            *lines, rest = rest.split("\\n")
            for line in lines:
                if line == end:
                    return
                yield line
            time.sleep(0.01)
    raise TimeoutError(f"{path}: no line {end!r} in {patience} s")
'''

_TESTS = """import tempfile
import threading
import time
import unittest

from growth import follow


class FollowTest(unittest.TestCase):
    def setUp(self):
        self.file = tempfile.NamedTemporaryFile("w")
        self.addCleanup(self.file.close)

    def write(self, *parts, pause=0.0):
        for part in parts:
            self.file.write(part)
            self.file.flush()
            time.sleep(pause)

    def test_a_finished_file_is_read_to_its_end(self):
        self.write("one\\ntwo\\nend\\n")
        self.assertEqual(list(follow(self.file.name, "end")), ["one", "two"])

    def test_a_file_that_grows_is_followed(self):
        writer = threading.Thread(
            target=self.write, args=("one\\n", "two\\n", "end\\n"), kwargs={"pause": 0.2}
        )
        writer.start()
        self.assertEqual(list(follow(self.file.name, "end")), ["one", "two"])
        writer.join()

    def test_a_line_in_two_parts_comes_once(self):
        writer = threading.Thread(
            target=self.write, args=("o", "ne\\n", "end\\n"), kwargs={"pause": 0.2}
        )
        writer.start()
        self.assertEqual(list(follow(self.file.name, "end")), ["one"])
        writer.join()

    def test_patience_ends(self):
        self.write("one\\n")
        with self.assertRaises(TimeoutError):
            list(follow(self.file.name, "end", patience=0.3))


if __name__ == "__main__":
    unittest.main()
"""

_WRONG = ("if line == end:", "if line != end:")  # what the suite must notice


async def bring_project(stage: Stage) -> list[Line]:
    """Make the project here, copy it into the sandbox, and ask git there."""
    git = find_git()
    source = stage.scratch / NAME
    with stage.screen.busy("making a git repository and copying it into the workspace"):
        await anyio.to_thread.run_sync(_write_files, source, stage.breaks("tests"))
        head = await _commit(git, source)
        copied = await _copy(stage, source)
    log = await _git(stage, git, "log", "--format=%H %an: %s")
    status = await _git(stage, git, "status", "--porcelain")
    commits = log.splitlines()
    for commit in commits:
        stage.screen.say(f"git log, in the sandbox: {commit[:7]} {commit.partition(' ')[2]}")
    stage.screen.say(f"git status, in the sandbox: {status.strip() or 'clean'}")
    problem = first_problem(
        (commits[0].startswith(head), f"the commit is {commits[0][:7]}, not {head[:7]}"),
        (not status, f"git status says {status.strip()!r}, expected nothing"),
    )
    figure = f"{copied} files, {len(commits)} commits, {'changed' if status else 'clean'}"
    return [Line("project", "a git repository arrives whole", figure, problem)]


def find_git() -> str:
    """The path of git; raises `DemoError` with how to install it."""
    git = shutil.which("git")
    if git is None:
        raise DemoError("the demo needs git: install it (Debian: sudo apt-get install git)")
    return git


def _write_files(source: Path, wrong: bool) -> None:
    module = _MODULE.replace(*_WRONG) if wrong else _MODULE
    source.mkdir()
    (source / "README.md").write_text(_README)
    (source / "growth.py").write_text(module)
    (source / "test_growth.py").write_text(_TESTS)


async def _commit(git: str, source: Path) -> str:
    """Two commits; the id of the second."""
    await _git_here(git, source, "init", "--quiet", "--template=")
    await _git_here(git, source, "add", "README.md")
    await _git_here(git, source, "commit", "--quiet", "--message", "Say what it is")
    await _git_here(git, source, "add", "growth.py", "test_growth.py")
    await _git_here(git, source, "commit", "--quiet", "--message", "Follow a file that grows")
    return (await _git_here(git, source, "rev-parse", "HEAD")).strip()


async def _git_here(git: str, folder: Path, *arguments: str) -> str:
    done = await anyio.run_process(
        [git, *arguments], cwd=folder, env=_git_environment(), check=False
    )
    if done.returncode:
        what = f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}"
        raise DemoError(f"the demo's own repository could not be made: {what}")
    return done.stdout.decode()


def _git_environment() -> dict[str, str]:
    """Ours without GIT_*, which a hook would have set; no settings of the user or the system."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= _WITHOUT_SETTINGS
    for role in ("AUTHOR", "COMMITTER"):
        environ |= {f"GIT_{role}_NAME": "Demo", f"GIT_{role}_EMAIL": "demo@example.org"}
    return environ


_WITHOUT_SETTINGS = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


async def _git(stage: Stage, git: str, *arguments: str) -> str:
    """git in the sandbox, through the sidecar."""
    done = await stage.run.exec([git, *arguments], cwd=NAME, env=_WITHOUT_SETTINGS)
    return done.check().stdout.decode()


async def _copy(stage: Stage, source: Path) -> int:
    """Copy the folder into the workspace; how many files there were."""
    files = await anyio.to_thread.run_sync(_read_folder, source)
    for path, mode, content in files:
        if stage.breaks("project") and path == "README.md":
            content = content[:-2] + b"!\n"
        await stage.run.files.write(f"{NAME}/{path}", content, mode=mode, parents=True)
    return len(files)


def _read_folder(folder: Path) -> Sequence[tuple[str, int, bytes]]:
    """Path, mode and content of each file below `folder`."""
    return [
        (path.relative_to(folder).as_posix(), path.stat().st_mode & 0o777, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
