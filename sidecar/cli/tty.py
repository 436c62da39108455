"""The terminal that we stand in: raw while a program of the sandbox has it, and then as before.

In raw mode (termios(3)) every key is a byte for the program: Ctrl-C, Ctrl-Z and Ctrl-\\ are no
signals of ours. So whoever leaves has to put back what was there, whatever the reason, or the
shell behind us cannot be used: `RawTerminal` is a context manager, and around a stop (SIGTSTP)
it does the same. Only SIGKILL leaves it raw; `stty sane` and Ctrl-J help then.

Only the foreground process group may set the modes of a terminal (a shell that took it back has
set its own); from the background it is left alone.
"""

from __future__ import annotations

import os
import signal
import termios
import tty
from contextlib import suppress
from types import TracebackType


class RawTerminal:
    """Raw from `enter` to `leave`; either is harmless when repeated."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[object] | None = None

    def __enter__(self) -> RawTerminal:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """From here on keys are bytes. TCSANOW: what was typed ahead is for the program. Raises
        `OSError` for what is no terminal, or no longer."""
        if self._before is not None:
            return
        try:
            before = termios.tcgetattr(self._fd)
            self._before = before
            tty.setraw(self._fd, termios.TCSANOW)
        except termios.error as error:
            raise OSError(*error.args) from None

    def leave(self) -> None:
        """As it was. Without draining: output that is held up (Ctrl-S) would hold us up."""
        before, self._before = self._before, None
        if before is None or not self._is_ours():
            return
        with suppress(termios.error):  # it hung up
            termios.tcsetattr(self._fd, termios.TCSANOW, before)  # type: ignore[arg-type]

    def stop(self) -> None:
        """What SIGTSTP asks for: stand still with the terminal as it was, until SIGCONT."""
        was_raw = self._before is not None
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        if was_raw:
            self.enter()

    def resume(self) -> None:
        """After SIGCONT: a shell that had the terminal meanwhile left it as shells have it."""
        if self._before is not None and self._is_ours():
            tty.setraw(self._fd, termios.TCSANOW)

    def _is_ours(self) -> bool:
        with suppress(OSError):
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        return False


def size_of(fd: int) -> tuple[int, int]:
    """Rows and columns, at least one each: 24 and 80 where the terminal does not say."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        columns, rows = 0, 0
    return rows or 24, columns or 80


def term() -> str:
    """What TERM says, as far as a program elsewhere can be told."""
    name = os.environ.get("TERM", "")
    return name if 0 < len(name) <= 64 and name.isascii() else "xterm-256color"
