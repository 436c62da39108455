"""When a part is started again, when all of them end, and what is the exit status then.

While it runs, a part that ends is started again, after a pause that doubles from `FIRST_PAUSE`
to `LONGEST_PAUSE` and is short again once the part has run for `STABLE`. Three things end it
all: the command ends, however it does; core or hands ends with a status that another start
would not change (`FINAL`); or we are told to. Then

1. the command and core are told at once; core drains, and needs hands for that;
2. when both have ended, hands is told;
3. what lives when the grace has passed is killed, and when we are told a second time.

The exit status is that of the part that ended it all. If we were told to, it is the command's,
or without one core's. Only statuses that were observed count.

Nothing here does anything: the shell reports what happened and carries out `actions`. Times are
seconds on its clock.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Sequence

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
STABLE = 60.0
KILL_TIME = 5.0  # from SIGKILL until we give up on a process that the kernel cannot end

UNKNOWN = 71  # EX_OSERR: it did not even end when it was killed


class Part(enum.Enum):
    """What we start."""

    CORE = "core"
    HANDS = "hands"
    COMMAND = "the command"


# Statuses after which a start would end the same way: bad usage, what may not be done, bad
# settings (sysexits.h), and what cannot be run or is not there. And core has said that its run
# has ended, by 0.
_HOPELESS = frozenset({2, 77, 78, 126, 127})
FINAL = {
    Part.CORE: _HOPELESS | {0},
    Part.HANDS: _HOPELESS,
    Part.COMMAND: frozenset(range(256)),
}

START = 0  # no signal has this number
Action = tuple[Part, int]  # a signal to send to a part, or START


class Phase(enum.IntEnum):
    """It only moves forward."""

    RUNNING = 0
    ENDING = 1  # the command and core are told
    LEAVING = 2  # hands is told
    OVER = 3


class Supervision:
    """Of `parts`, which are started in their order. A status is a shell's: 128 + N for a signal."""

    def __init__(self, parts: Sequence[Part], *, grace: float) -> None:
        self.phase = Phase.RUNNING
        self._parts = parts
        self._grace = grace
        self._living: dict[Part, float] = {}  # since when
        self._paused: dict[Part, float] = {}  # until when
        self._failures = dict.fromkeys(parts, 0)  # in a row
        self._statuses: dict[Part, int] = {}
        self._speaker = Part.COMMAND if Part.COMMAND in parts else Part.CORE
        self._is_told = False
        self._is_killed = False
        self._deadline: float | None = None  # of the end
        self._actions: list[Action] = []

    def begin(self, *, now: float) -> None:
        """Start them all."""
        for part in self._parts:
            self._start(part, now)

    def receive_signal(self, number: int, *, now: float) -> None:
        """Somebody has sent us this. SIGTERM and SIGINT are for us, the rest for the command."""
        if number not in (signal.SIGTERM, signal.SIGINT):
            self._tell(Part.COMMAND, number)
        elif self._is_told:
            self._kill(now)
        else:
            self._is_told = True
            if self.phase is Phase.RUNNING:
                self._end(now, number)

    def part_ended(self, part: Part, status: int, *, now: float) -> None:
        """It has ended, or could not be started; the status says which."""
        ran = now - self._living.pop(part)
        self._statuses[part] = status
        if self.phase is not Phase.RUNNING:
            self._advance()
        elif status in FINAL[part]:
            self._speaker = part
            self._end(now, signal.SIGTERM)
        else:
            if ran >= STABLE:
                self._failures[part] = 0
            pause: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** self._failures[part])
            self._failures[part] += 1
            self._paused[part] = now + pause

    def actions(self) -> list[Action]:
        """What is to be done since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def next_deadline(self) -> float | None:
        """When `handle_deadline` is to be called, if nothing happens before."""
        if self.phase is Phase.RUNNING:
            return min(self._paused.values(), default=None)
        return self._deadline

    def handle_deadline(self, *, now: float) -> None:
        """Harmless when it is called too soon."""
        for part in [part for part, until in self._paused.items() if until <= now]:
            del self._paused[part]
            self._start(part, now)
        if self._deadline is None or now < self._deadline:
            return
        if self._is_killed:
            self.phase = Phase.OVER
        else:
            self._kill(now)

    @property
    def is_over(self) -> bool:
        return self.phase is Phase.OVER

    @property
    def exit_status(self) -> int:
        return UNKNOWN if self._speaker in self._living else self._statuses.get(self._speaker, 0)

    def pause_of(self, part: Part, *, now: float) -> float | None:
        """Seconds until it is started again; None if it is not going to be."""
        return self._paused[part] - now if part in self._paused else None

    def _start(self, part: Part, now: float) -> None:
        self._living[part] = now
        self._actions.append((part, START))

    def _tell(self, part: Part, number: int) -> None:
        if part in self._living:
            self._actions.append((part, number))

    def _end(self, now: float, number: int) -> None:
        self.phase = Phase.ENDING
        self._paused.clear()
        self._deadline = now + self._grace
        self._tell(Part.COMMAND, number)
        self._tell(Part.CORE, signal.SIGTERM)
        self._advance()

    def _advance(self) -> None:
        if self.phase is Phase.ENDING and not self._living.keys() & {Part.COMMAND, Part.CORE}:
            self.phase = Phase.LEAVING
            self._tell(Part.HANDS, signal.SIGTERM)
        if self.phase is Phase.LEAVING and not self._living:
            self.phase = Phase.OVER

    def _kill(self, now: float) -> None:
        if self._is_killed:
            return
        self._is_killed = True
        self._deadline = now + KILL_TIME
        for part in self._living:
            self._tell(part, signal.SIGKILL)
