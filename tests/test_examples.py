"""The examples and the client of README.md, each run as a program against a real sidecar."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sidecar.client import Cursor
from sidecar.hub import Hub, serve
from sidecar.protocol.names import controller_grant, sidecar_grant

ROOT = Path(__file__).parent.parent
TIME = 30  # seconds
RUN = "demo"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sidecar that serves `workspace`, and the URL for a controller `me`."""

    workspace: Path
    url: str

    async def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end, off the loop, on which the hub is served."""

        def work() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *arguments],
                env={**os.environ, "CLIENT_URL": self.url},
                capture_output=True,
                text=True,
                timeout=TIME,
            )

        return await anyio.to_thread.run_sync(work)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    hub = Hub()
    async with serve(hub) as address:
        token = tmp_path / "token"
        token.write_text(hub.mint(sidecar_grant(RUN)))
        environ = {
            "SIDECAR_RUN": RUN,
            "SIDECAR_HUB": address.client_url,
            "SIDECAR_TOKEN_FILE": str(token),
            "SIDECAR_WORKSPACE": str(workspace),
            "SIDECAR_STATE": str(tmp_path / "state"),
        }
        with (tmp_path / "log").open("wb") as log:
            command = [sys.executable, "-m", "sidecar", "run"]
            process = await anyio.open_process(
                command, env={**os.environ, **environ}, stdout=log, stderr=log
            )
        access = hub.mint(controller_grant("me", [RUN]))
        yield Sandbox(workspace, f"{address.client_url}?access_token={access}")
        process.terminate()
        with anyio.fail_after(TIME):
            await process.wait()
        await process.aclose()


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
    done = await sandbox.python(str(ROOT / "examples/run_tests.py"), RUN, str(project))
    assert done.returncode == 1
    assert done.stdout == "3 files copied\nseen on the way\n"
    assert "AssertionError: '42' != '43'" in done.stderr
    assert "Ran 2 tests" in done.stderr
    assert (sandbox.workspace / "project/answer.txt").read_text() == "42"


async def test_another_program_can_be_run_in_the_folder(sandbox: Sandbox, project: Path) -> None:
    script = str(ROOT / "examples/run_tests.py")
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
    command = [sys.executable, str(ROOT / "examples/follow_events.py"), RUN, str(cursor)]
    environ = {**os.environ, "CLIENT_URL": sandbox.url}
    return Following(await anyio.open_process(command, env=environ, stderr=None))


async def test_events_go_on_where_they_stopped(
    sandbox: Sandbox, project: Path, tmp_path: Path
) -> None:
    cursor = tmp_path / "cursor"
    script = str(ROOT / "examples/run_tests.py")
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


async def test_a_program_is_come_back_to_where_it_was_left(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    state = tmp_path / "program.json"
    arguments = [str(ROOT / "examples/come_back.py"), RUN, str(state)]
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


@pytest.mark.parametrize("name", ["run_tests.py", "follow_events.py", "come_back.py"])
def test_an_example_says_how_it_is_used(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("usage: CLIENT_URL=... ")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_is_short_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert text.startswith('"""')
    assert path.name in Path(__file__).read_text(), "and it is run here"
