"""The examples of controllers and the client of README.md, each run against a real sidecar."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from sandbox import RUN, TIME, Sandbox, open_sandbox

from sidecar.client import Cursor

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples/controller"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with open_sandbox(tmp_path) as sandbox:
        yield sandbox


async def test_the_client_in_the_readme_works(sandbox: Sandbox, tmp_path: Path) -> None:
    blocks = re.compile(r"<!-- client-example -->\n```python\n(.+?)```", re.DOTALL)
    [code] = blocks.findall((ROOT / "README.md").read_text())
    assert len([line for line in code.splitlines() if line]) <= 10
    done = await sandbox.python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 hello from the sandbox\n\n"
    assert (sandbox.workspace / "hello.py").read_text() == "print('hello from the sandbox')"


TESTS = """
import unittest

class FirstTest(unittest.TestCase):
    def test_it_passes(self):
        print("seen on the way")

    def test_it_fails(self):
        self.assertEqual(open("answer.txt").read(), "43")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "tools").mkdir(parents=True)
    (folder / "test_answer.py").write_text(TESTS)
    (folder / "answer.txt").write_text("42")
    (folder / "tools/hello").write_text("#!/bin/sh\necho hello from $0\n")
    (folder / "tools/hello").chmod(0o755)
    return folder


async def test_the_tests_of_a_folder_run_in_the_sandbox(sandbox: Sandbox, project: Path) -> None:
    done = await sandbox.python(str(EXAMPLES / "run_tests.py"), RUN, str(project))
    assert done.returncode == 1
    assert done.stdout == "3 files copied\nseen on the way\n"
    assert "AssertionError: '42' != '43'" in done.stderr
    assert "Ran 2 tests" in done.stderr
    assert (sandbox.workspace / "project/answer.txt").read_text() == "42"


async def test_another_program_can_be_run_in_the_folder(sandbox: Sandbox, project: Path) -> None:
    script = str(EXAMPLES / "run_tests.py")
    done = await sandbox.python(script, RUN, str(project), "./tools/hello")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3 files copied\nhello from ./tools/hello\n"


@dataclass(slots=True)
class Following:
    """`follow_events.py` as it runs."""

    process: anyio.abc.Process
    text: str = ""

    async def until(self, count: int) -> list[tuple[int, str]]:
        """Number and name of the events that it printed, once there are `count`."""
        assert self.process.stdout is not None
        with anyio.fail_after(TIME):
            while self.text.count("\n") < count:
                self.text += (await self.process.stdout.receive()).decode()
        rows = [line.split(" ", 2) for line in self.text.splitlines()]
        return [(int(row[0]), row[1]) for row in rows]

    async def kill(self) -> None:
        self.process.kill()
        await self.process.aclose()


async def follow(sandbox: Sandbox, cursor: Path) -> Following:
    command = [sys.executable, str(EXAMPLES / "follow_events.py"), RUN, str(cursor)]
    environ = {**os.environ, "CLIENT_URL": sandbox.url}
    return Following(await anyio.open_process(command, env=environ, stderr=None))


@pytest.mark.slow
async def test_events_go_on_where_they_stopped(
    sandbox: Sandbox, project: Path, tmp_path: Path
) -> None:
    cursor = tmp_path / "cursor"
    script = str(EXAMPLES / "run_tests.py")
    await sandbox.python(script, RUN, str(project), "true")
    first = await follow(sandbox, cursor)
    written = [(seq, "files.written") for seq in (2, 3, 4)]
    ran = [(5, "exec.started"), (6, "exec.ended")]
    assert await first.until(6) == [(1, "sidecar.started"), *written, *ran]
    await first.kill()
    saved = Cursor.parse(cursor.read_text()).seq
    assert saved in (5, 6)  # it may have been killed between printing and saving

    await sandbox.python(script, RUN, str(project), "true")
    second = await follow(sandbox, cursor)
    rest = list(range(saved + 1, 12))
    assert [seq for seq, _ in await second.until(len(rest))] == rest
    await second.kill()


@pytest.mark.slow
async def test_a_program_is_come_back_to_where_it_was_left(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    state = tmp_path / "program.json"
    arguments = [str(EXAMPLES / "come_back.py"), RUN, str(state)]
    program = ["sh", "-c", "echo one; until [ -e go ]; do sleep 0.02; done; echo two; exit 3"]
    environ = {**os.environ, "CLIENT_URL": sandbox.url}
    first = await anyio.open_process([sys.executable, *arguments, *program], env=environ)
    assert first.stdout is not None
    with anyio.fail_after(TIME):
        assert await first.stdout.receive() == b"one\n"
        while '"offset": 4' not in state.read_text():  # noqa: ASYNC110 - another process writes
            await anyio.sleep(0.01)
    first.kill()
    await first.aclose()

    (sandbox.workspace / "go").touch()
    second = await sandbox.python(*arguments, *program)
    assert (second.returncode, second.stdout, second.stderr) == (3, "two\n", "")
    assert not state.exists()


async def test_a_file_is_worked_on_and_what_came_of_it_is_taken_home(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("one\nthe answer is 42\n")
    (sandbox.workspace / ".gitignore").write_text("*.log\n")
    script = "mkdir out; tr a-z A-Z < notes.txt > out/NOTES; echo 42 > some.log; exit 3"
    done = await sandbox.python(
        str(EXAMPLES / "work_on_files.py"), RUN, str(notes), "42", "sh", "-c", script
    )
    assert (done.returncode, done.stderr) == (3, "")
    lines = done.stdout.splitlines()
    assert {"added out", "added out/NOTES", "added some.log"} <= set(lines[:-3])
    assert lines[-3:-1] == ["notes.txt:2: the answer is 42", "out/NOTES:2: THE ANSWER IS 42"]
    assert lines[-1] == "4 entries, 0 left out"
    with tarfile.open(tmp_path / "notes.txt.tar.gz") as archive:
        assert sorted(archive.getnames()) == [".gitignore", "notes.txt", "out", "out/NOTES"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_how_it_is_used(path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: CLIENT_URL=... ")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= (200 if path.name == "live_viewer.py" else 60)
    assert text.startswith('"""')
    tests = Path(__file__).read_text() + Path(__file__).with_name("test_live_viewer.py").read_text()
    assert path.name in tests, "and it is run"


async def test_ten_lines_are_a_client(sandbox: Sandbox) -> None:
    script = str(EXAMPLES / "ten_lines.py")
    done = await sandbox.python(script, RUN, "sh", "-c", "pwd; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{sandbox.workspace}\n", "")
    body = (EXAMPLES / "ten_lines.py").read_text().partition("import os")[2]
    assert len([line for line in body.splitlines() if line.startswith("    ")]) <= 10
