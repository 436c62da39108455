"""A core, `sidecar run` as a process, that is killed or stopped and started again."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from stack import PATIENCE, Stack

LINES = 60_000
PRINTER = (
    "import sys, time\n"
    f"for n in range({LINES}):\n"
    "    sys.stdout.write(f'{n:08d}\\n')\n"
    "    if n % 200 == 0:\n"
    "        sys.stdout.flush()\n"
    "        time.sleep(0.005)\n"
    "sys.exit(7)\n"
)
MIDDLE = "echo before; until [ -e go ]; do sleep 0.01; done; echo after; exit 3"


def check_lines(output: bytes) -> None:
    """Every line of `PRINTER` once and in order."""
    assert output == b"".join(b"%08d\n" % n for n in range(LINES))


class Core:
    """In any number of lives, on one state folder. `hands`: the socket of the other half."""

    def __init__(self, stack: Stack, hands: Path | None, **options: Any) -> None:
        self._stack = stack
        self._options = options if hands is None else {"hands": str(hands), **options}
        self.child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._stack.sidecars.clear()  # so that the next one has the same state folder
        return self._stack.start_sidecar_process(**self._options)

    def start(self) -> None:
        self.child = self._start()

    async def kill(self) -> None:
        self.child.kill()
        await anyio.to_thread.run_sync(self.child.wait)

    async def kill_and_start(self) -> None:
        await self.kill()
        self.start()

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.child.send_signal(signal.SIGTERM)
        return await self.ended()

    async def stop_and_start(self) -> None:
        assert await self.stop() == 0
        self.start()

    async def ended(self) -> int:
        """The exit status, once it has ended by itself."""
        with anyio.fail_after(2 * PATIENCE):
            return await anyio.to_thread.run_sync(self.child.wait, abandon_on_cancel=True)
