"""The loop of `sidecar supervise`: hear, reap, decide, act, until nothing is left.

Signals are blocked and waited for (sigtimedwait(2)), so nothing interrupts anything. A part is
signalled by its pid as long as it was not reaped, and only we reap: until then no other process
can have that number. Each child that ends is waited for, known or not (wait(2), NOTES).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping

from sidecar.supervisor.parts import Program
from sidecar.supervisor.privileges import adopt_orphans
from sidecar.supervisor.saying import say
from sidecar.supervisor.spawning import NotStarted, start
from sidecar.supervisor.supervision import START, Part, Phase, Supervision

HEARD = {
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
}
# In the background of the terminal that the command has; nothing of it is to stop us.
_STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
SWEEP_TIME = 5.0  # seconds until we leave to the kernel what it cannot kill
SWEEP_STEP = 0.05


class Supervisor:
    """Of `programs`, from their start until no process is left."""

    def __init__(self, programs: Mapping[Part, Program], *, grace: float) -> None:
        self._programs = programs
        self._supervision = Supervision(list(programs), grace=grace)
        self._pids: dict[int, Part] = {}
        self._mask: set[signal.Signals] = set()

    def run(self) -> int:
        """The exit status."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would leave us no statuses
        self._mask = {
            *map(signal.Signals, signal.pthread_sigmask(signal.SIG_BLOCK, HEARD | _STOPS))
        }
        adopt_orphans()
        self._supervision.begin(now=time.monotonic())
        self._act()
        while not self._supervision.is_over:
            self._hear()
            self._reap()
            self._supervision.handle_deadline(now=time.monotonic())
            self._act()
        self._sweep()
        return self._supervision.exit_status

    def _hear(self) -> None:
        """Wait for a signal, or for the next deadline."""
        deadline = self._supervision.next_deadline()
        if deadline is None:
            heard = signal.sigwaitinfo(HEARD)
        else:
            found = signal.sigtimedwait(HEARD, max(0.0, deadline - time.monotonic()))
            if found is None:
                return
            heard = found
        number = heard.si_signo
        if number == signal.SIGCHLD:
            return
        before = self._supervision.phase
        self._supervision.receive_signal(number, now=time.monotonic())
        if before is not self._supervision.phase:
            say("info", f"{signal.Signals(number).name}: ending")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            part = self._pids.pop(pid, None)
            if part is not None:
                code = os.waitstatus_to_exitcode(status)
                self._note_end(part, code if code >= 0 else 128 - code)

    def _act(self) -> None:
        while actions := self._supervision.actions():
            for part, number in actions:
                if number == START:
                    self._start(part)
                else:
                    self._send(part, number)

    def _start(self, part: Part) -> None:
        program = self._programs[part]
        try:
            pid = start(program, mask=self._mask)
        except NotStarted as error:
            say("error", f"{part.value} cannot be started: {error}")
            self._note_end(part, error.status)
            return
        self._pids[pid] = part
        say("info", f"{part.value} is process {pid}, uid {program.account.uid}")

    def _send(self, part: Part, number: int) -> None:
        for pid, its in self._pids.items():
            if its is part:
                os.kill(pid, number)

    def _note_end(self, part: Part, status: int) -> None:
        """Tell what ended, and what follows from it."""
        now = time.monotonic()
        was_running = self._supervision.phase is Phase.RUNNING
        self._supervision.part_ended(part, status, now=now)
        ended = f"{part.value} ended with {_describe(status)}"
        pause = self._supervision.pause_of(part, now=now)
        if pause is not None:
            say("warning", f"{ended}: starting it again in {pause:.1f} s")
        else:
            say("info", f"{ended}: ending" if was_running else ended)

    def _sweep(self) -> None:
        """Kill what is left below us. What they leave in turn becomes our child, so again."""
        give_up = time.monotonic() + SWEEP_TIME
        self._reap()
        while (left := _children()) and time.monotonic() < give_up:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, SWEEP_STEP)
            self._reap()
        if left:
            say("warning", f"{len(left)} processes could not be killed")


def _describe(status: int) -> str:
    if status > 128:
        try:
            return f"status {status} (128 + {signal.Signals(status - 128).name})"
        except ValueError:
            pass
    return f"status {status}"


def _children() -> list[int]:
    """Those that we have not reaped, so that no other process has their number (proc(5))."""
    found = []
    ours = str(os.getpid()).encode()
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                # The name in parentheses may hold anything, also spaces and parentheses.
                parent = stat.read().rpartition(b")")[2].split()[1]
        except (OSError, IndexError):  # it has ended
            continue
        if parent == ours:
            found.append(int(name))
    return found
