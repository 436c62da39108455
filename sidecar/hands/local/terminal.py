"""The master side of a program's terminal (pty(7), ioctl_tty(2)).

The program opens the other side by its path, /dev/pts/N, as the leader of its new session; that
makes it the controlling terminal. All descriptors of the master are one open file: non-blocking,
and read by nobody in here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import termios

from sidecar.errors import CallError, Code, Invalid, from_os_error

MAX_CELLS = 65_535  # rows or columns: 16 bits of struct winsize

_PTMX = "/dev/ptmx"
_PTS = b"/dev/pts/%d"
_IUTF8 = 0o40000  # erase whole characters, not bytes; termios of Python 3.11 does not name it
_TIOCSPTLCK, _TIOCGPTN, _TIOCSIG = 0x40045431, 0x80045430, 0x40045436  # asm-generic/ioctls.h
_KEYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)  # all that TIOCSIG takes
_NONE_HERE = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EACCES, errno.EPERM, errno.EIO)


def open_terminal(rows: int, cols: int, *, plain: bool = False) -> tuple[int, bytes]:
    """A new master, and the path of what its program opens. Raises `CallError`."""
    try:
        master = os.open(_PTMX, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _explain(error, _PTMX) from None
    try:
        resize(master, rows, cols)
        _set_up(master, plain=plain)
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
        path = _PTS % number
        _check_reach(path)
    except BaseException:
        os.close(master)
        raise
    return master, path


def resize(master: int, rows: int, cols: int) -> None:
    """The foreground group gets SIGWINCH if this is another size."""
    check_size(rows, cols)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))


def signal_foreground(master: int, number: int) -> None:
    """A signal to the group that reads the terminal now; to nobody if there is none.

    What the keyboard can send the kernel sends, as for a key: no group can take another's number
    meanwhile, and it reaches programs of other users. Any other signal goes to the group by its
    number.
    """
    if number in _KEYS:
        fcntl.ioctl(master, _TIOCSIG, number)
        return
    group = os.tcgetpgrp(master)
    if group > 0:  # 0 would be our own
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            pass
        except OSError as error:
            raise from_os_error(error, f"process group {group}") from None


def check_size(rows: int, cols: int) -> None:
    for count, what in ((rows, "rows"), (cols, "columns")):
        if not 1 <= count <= MAX_CELLS:
            raise Invalid(f"a terminal of {count} {what}: 1 to {MAX_CELLS} allowed")


def _set_up(master: int, *, plain: bool) -> None:
    """The kernel's settings are a user's (tty_std_termios), but for whole characters."""
    attributes = termios.tcgetattr(master)
    attributes[0] |= _IUTF8
    if plain:
        attributes[0] &= ~termios.IXON
        attributes[1] &= ~termios.OPOST
        attributes[3] &= ~termios.ECHO
    termios.tcsetattr(master, termios.TCSANOW, attributes)


def _check_reach(path: bytes) -> None:
    """A program that cannot open it would look as if it were missing itself."""
    try:
        os.close(os.open(path, os.O_PATH | os.O_CLOEXEC))
    except OSError as error:
        raise _explain(error, path) from None


def _explain(error: OSError, path: str | bytes) -> CallError:
    if error.errno == errno.ENOSPC:
        return CallError(
            Code.LIMIT, "no terminal is left: all that kernel.pty.max allows are in use"
        )
    if error.errno in _NONE_HERE:
        reason = f"{os.fsdecode(path)}: {os.strerror(error.errno)}"
        return CallError(Code.UNSUPPORTED, f"there are no terminals here: {reason}")
    return from_os_error(error, path)
