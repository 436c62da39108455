"""`sidecar supervise` as a program, with two users below it, beside a hub or without one.

`as_pid_1` gives it a namespace of pids, in which it is the first process. Its parent is then the
`unshare` that made the namespace, and ends with the same status.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import openway

CORE, AGENT = 10001, 10002
PATIENCE = 15.0  # seconds for anything


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` says once that is true."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.01)
    return found


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


class Supervised:
    """One that runs, or ran. `workspace` is the agent's, `state` and `token` are core's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        os.chown(self.workspace, AGENT, AGENT)
        self.state = folder / "state"
        self.socket = folder / "meet" / "hands.sock"
        self.token = folder / "token"
        self.process: subprocess.Popen[bytes]
        self.is_pid_1 = False

    def give_token(self, token: str) -> None:
        self.token.touch(mode=0o400)
        self.token.write_text(token)
        os.chown(self.token, CORE, CORE)

    def start(
        self,
        *command: str,
        flags: Sequence[str] = (),
        prefix: Sequence[str] = (),
        as_pid_1: bool = False,
        **environ: str,
    ) -> None:
        """`sidecar supervise FLAGS -- COMMAND`, with settings that would do for a core. `prefix`:
        the program that starts it in its own place, with its arguments."""
        kept = {name: value for name, value in os.environ.items() if "SIDECAR_" not in name}
        settings = {
            "SIDECAR_RUN": "demo",
            "SIDECAR_HUB": "ws://127.0.0.1:9/client/hubs/none",
            "SIDECAR_TOKEN_FILE": str(self.token),
            "SIDECAR_STATE": str(self.state),
            "SIDECAR_HANDS": str(self.socket),
            "SIDECAR_WORKSPACE": str(self.workspace),
            "SIDECAR_DRAIN": "0.2",  # seconds, which who has no channel waits in vain
            "PYTHONPATH": str(openway.ROOT),
        }
        hold = self.folder / "hold"
        hold.mkdir(exist_ok=True)
        self.is_pid_1 = as_pid_1
        namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc"] if as_pid_1 else []
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--mount", *namespaces),
                    *(sys.executable, openway.__file__, str(hold), *prefix),
                    *(sys.executable, "-sP", "-m", "sidecar", "supervise", *flags),
                    *(("--", *command) if command else ()),
                ],
                env={**kept, **settings, **environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.workspace,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def pid(self) -> int:
        """Of the supervisor; of `unshare` if it is PID 1 and has not started yet."""
        pids = children(self.process.pid) if self.is_pid_1 else []
        return pids[0] if pids else self.process.pid

    def part(self, verb: str, *, but: int = 0) -> int:
        """The pid of core (`run`) or `hands`, when it runs; another one than `but`."""

        def find() -> int:
            assert self.process.poll() is None, self.log
            for pid in children(self.pid):
                try:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if pid != but and verb.encode() in words and b"sidecar" in words:
                    return pid
            return 0

        return int(wait_until(find, verb))

    def says(self, pattern: str) -> re.Match[str]:
        """When the log has it."""
        found = wait_until(lambda: re.search(pattern, self.log), f"{pattern}: {self.log}")
        assert isinstance(found, re.Match)
        return found

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(PATIENCE)

    def output(self) -> bytes:
        """All that the command printed; its standard input is at its end."""
        return self.process.communicate(timeout=PATIENCE)[0]

    def close(self) -> None:
        """Told twice it kills at once, and leaves nobody who still writes in our folder."""
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            for _ in range(2):
                if self.process.poll() is None:
                    self.send(signal.SIGTERM)
            self.wait()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def open_folder() -> Iterator[Path]:
    """One that all users may go through, and that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="sc-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@contextmanager
def supervised() -> Iterator[Supervised]:
    """Not started yet; what it left is killed after the block."""
    with ExitStack() as exits:
        found = Supervised(exits.enter_context(open_folder()))
        yield found
        if hasattr(found, "process"):
            found.close()
