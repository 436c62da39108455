"""A terminal for a program that is tested: a real one (pty(7)), read by an emulator."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte

PATIENCE = 20.0  # seconds for anything
# A session leader that opens a terminal gets it as its controlling terminal.
BEGIN = ["sh", "-c", 'exec "$@" 0<>"$0" 1>&0 2>&0']


class Screen(pyte.Screen):
    """Pyte's takes xterm's private attributes for colours, and fails on them."""

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        if not private:
            super().select_graphic_rendition(*attributes)


class Console:
    """`program` at a terminal of its own. Use it as a context manager: leaving kills it."""

    def __init__(
        self, program: Sequence[str], env: Mapping[str, str], *, rows: int = 24, cols: int = 80
    ) -> None:
        self._master, slave = os.openpty()
        self._screen = Screen(cols, rows)
        self._screen.write_process_input = self.type  # type: ignore[method-assign]
        self._stream = pyte.ByteStream(self._screen)
        self.raw_output = b""
        self.resize(rows, cols)
        self._cooked = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [*BEGIN, os.ttyname(slave), *program],
            env={**env, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.send_signal(signal.SIGCONT)
        self.process.wait()
        os.close(self._master)

    def type(self, keys: str | bytes) -> None:
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def paste(self, data: bytes) -> None:
        """Type much, and read meanwhile."""
        os.set_blocking(self._master, False)
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._master, view) :]
            except BlockingIOError:
                self._read(0.01)
        os.set_blocking(self._master, True)

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))
        self._screen.resize(rows, cols)

    @property
    def text(self) -> str:
        """What stands on it now, line by line."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def is_raw(self) -> bool:
        """Whether keys are bytes for a program."""
        return not termios.tcgetattr(self._master)[3] & termios.ICANON

    @property
    def is_as_before(self) -> bool:
        """Whether every mode is as it was before the program."""
        return termios.tcgetattr(self._master) == self._cooked

    def shows(self, text: str) -> None:
        """Wait until `text` stands on it."""
        self.until(lambda: text in self.text, f"{text!r} on the screen")

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            has_ended = self.process.poll() is not None
            is_late = time.monotonic() > end
            if not self._read(0.02) and (has_ended or is_late) and not condition():
                raise AssertionError(f"waited for {what}:\n{self.text}")

    def ends(self) -> int:
        """Wait for the end of the program; its exit status."""
        self.until(lambda: self.process.poll() is not None, "the end")
        while self._read(0):
            pass
        return self.process.returncode

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nobody has it open any more
            time.sleep(timeout)
            return False
        self.raw_output += data
        self._stream.feed(data)
        return True
