"""Start a program as another user, and learn why that failed, if it did.

Between fork and exec the child runs Python code, which is sound because this process has one
thread. What goes wrong there the child writes to a pipe that exec closes (O_CLOEXEC): an empty
answer means that the program runs. From setresuid(2) to execve(2) the child is of the agent's
user, but not dumpable (ptrace(2)), so no process of the agent looks into what is ours.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Set

from sidecar.supervisor.accounts import Account
from sidecar.supervisor.parts import Program
from sidecar.supervisor.privileges import Denied, become, end_with

EX_TEMPFAIL = 75  # another try may do better
EX_NOPERM = 77
NOT_EXECUTABLE = 126  # as a shell has it
NOT_FOUND = 127

_EXEC = "exec"
_WHY_DENIED = {
    "setgroups": "CAP_SETGID is missing, or the user namespace allows no setgroups",
    "setresgid": "CAP_SETGID is missing, or the user namespace has no such group",
    "setresuid": "CAP_SETUID is missing, or the user namespace has no such user",
}
_FOR_NOW = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY, errno.EINTR)


class NotStarted(Exception):
    """The sentence says why; `status` is what a shell would give, or 75 and 77 of sysexits.h."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def start(program: Program, *, mask: Set[signal.Signals]) -> int:
    """The pid of the program, which runs. `mask`: the signals that are blocked for it. Raises
    `NotStarted`."""
    parent = os.getpid()

    def run() -> None:
        become(program.account, new_privileges=program.new_privileges)
        end_with(parent)
        _arrange(program)
        _restore_signals(mask)
        try:
            os.execvpe(program.argv[0], program.argv, program.environment)
        except OSError as error:
            raise Denied(_EXEC, error.errno or 0) from None

    pid, failure = _fork(run)
    if failure is not None:
        raise _not_started(program, failure)
    return pid


def try_as(account: Account, attempt: Callable[[], object]) -> int:
    """Make an attempt as another user, in a child: 0, or the errno of the `OSError` it raised.
    Raises `NotStarted` if nobody can become that user."""

    def run() -> None:
        become(account)
        try:
            attempt()
        except OSError as error:
            raise Denied("", error.errno or 0) from None

    _, failure = _fork(run, wait=True)
    if failure is None:
        return 0
    if failure.step:
        raise NotStarted(_sentence_of_identity(account, failure), EX_NOPERM)
    return failure.number


def _fork(run: Callable[[], None], *, wait: bool = False) -> tuple[int, Denied | None]:
    """The child's pid, and what went wrong in it, in which case it was reaped, as with `wait`."""
    answer, question = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(answer)
        os.close(question)
        return 0, Denied("fork", error.errno or 0)
    if pid == 0:
        _run_child(run, question)
    os.close(question)
    with open(answer, "rb") as pipe:
        said = pipe.read()
    if said or wait:
        os.waitpid(pid, 0)
    if not said:
        return pid, None
    step, _, number = said.decode().rpartition(" ")
    return pid, Denied(step, int(number))


def _run_child(run: Callable[[], None], question: int) -> None:
    """Never returns."""
    try:
        # Not one of our descriptors, nor of those that whoever started us left open.
        os.closerange(3, question)
        os.closerange(question + 1, 1 << 20)
        run()
    except Denied as error:
        os.write(question, f"{error.step} {error.number}".encode())
    except BaseException as error:
        os.write(question, f"{type(error).__name__} 0".encode())
    finally:
        os._exit(NOT_EXECUTABLE)


def _arrange(program: Program) -> None:
    """The command stays in our session, whose terminal it may have. The others get one of their
    own: Ctrl-C at a terminal is for the command, and it is we who end them."""
    if program.attended:
        os.setpgid(0, 0)
        if os.isatty(0):
            _bring_to_foreground()
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)


def _bring_to_foreground() -> None:
    """SIGTTOU, which this would raise, is blocked still (tcsetpgrp(3))."""
    try:
        os.tcsetpgrp(0, os.getpid())
    except OSError:  # not our controlling terminal
        return


def _restore_signals(mask: Set[signal.Signals]) -> None:
    """What Python ignores for its own sake a program expects to be killed by."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _not_started(program: Program, failure: Denied) -> NotStarted:
    number, why = failure.number, os.strerror(failure.number)
    if number in _FOR_NOW:
        return NotStarted(f"{failure.step}: {why}", EX_TEMPFAIL)
    if failure.step != _EXEC:
        return NotStarted(_sentence_of_identity(program.account, failure), EX_NOPERM)
    status = NOT_FOUND if number == errno.ENOENT else NOT_EXECUTABLE
    return NotStarted(f"{program.argv[0]}: {why}", status)


def _sentence_of_identity(account: Account, failure: Denied) -> str:
    why = _WHY_DENIED.get(failure.step) if failure.number == errno.EPERM else None
    reason = why or f"{failure.step}: {os.strerror(failure.number)}"
    return f"cannot become uid {account.uid}, gid {account.gid}: {reason}"
