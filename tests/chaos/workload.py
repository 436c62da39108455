"""What the controller does, operation by operation: pure, so that the judge knows every byte.

Operation `n` of a seed is always the same one. A program notes its call id in `begun` when it
begins and in `ended` before it ends (one `write` with O_APPEND each), so that the marks of a
call can be counted whatever the sidecar says of it.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from enum import StrEnum

KIB = 1024
BEGUN, ENDED = "begun", "ended"  # in the workspace
SOURCES = 3  # files in the workspace that are there to be read
PAUSE = 0.02  # seconds between two bursts of lines


class Kind(StrEnum):
    """What an operation does."""

    MARK = "mark"  # a program that prints little, which stands in its result
    LINES = "lines"  # one that prints lines in bursts, to both outputs, live
    BULK = "bulk"  # one that prints a megabyte or more at once, live
    READ = "read"
    WRITE = "write"
    PING = "ping"


PROGRAMS = (Kind.MARK, Kind.LINES, Kind.BULK)
_WEIGHTS = {
    Kind.MARK: 6,
    Kind.LINES: 4,
    Kind.BULK: 2,
    Kind.READ: 3,
    Kind.WRITE: 3,
    Kind.PING: 2,
}


@dataclass(frozen=True, slots=True)
class Operation:
    """`size` is lines of a program, bytes of a file; `bursts` those of its lines."""

    number: int
    kind: Kind
    size: int = 0
    bursts: int = 1

    @property
    def has_effects(self) -> bool:
        return self.kind in PROGRAMS or self.kind is Kind.WRITE

    @property
    def path(self) -> str:
        """The file that is read or written."""
        if self.kind is Kind.READ:
            return f"source-{self.number % SOURCES}"
        return f"target-{self.number}"

    def program(self, mark: str) -> str:
        """The shell text that leaves `mark` once on each of both lists."""
        if self.kind is Kind.LINES:
            each = self.size // self.bursts
            prints = (
                f"i=0; while [ $i -lt {self.bursts} ]; do"
                f" seq -f '{self.number}.%.0f' $((i * {each} + 1)) $((i * {each} + {each}));"
                f" echo {self.number}.err.$i >&2; i=$((i + 1)); sleep {PAUSE}; done"
            )
        else:
            prints = f"seq -f '{self.number}.%.0f' 1 {self.size}"
        return f"echo {mark} >> {BEGUN}; {prints}; echo {mark} >> {ENDED}"

    def output(self) -> dict[int, bytes]:
        """What the program prints, by stream."""
        lines = b"".join(b"%d.%d\n" % (self.number, i) for i in range(1, self.size + 1))
        errors = b""
        if self.kind is Kind.LINES:
            errors = b"".join(b"%d.err.%d\n" % (self.number, i) for i in range(self.bursts))
        return {1: lines, 2: errors}


def operation(seed: int, number: int) -> Operation:
    """The operation with this number, of this seed."""
    chance = random.Random(f"operation {seed} {number}")
    kind = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    match kind:
        case Kind.MARK:
            return Operation(number, kind, chance.randrange(1, 200))
        case Kind.LINES:
            bursts = chance.randrange(5, 25)
            return Operation(number, kind, bursts * chance.randrange(1, 400), bursts)
        case Kind.BULK:
            return Operation(number, kind, chance.randrange(60_000, 250_000))
        case Kind.WRITE:
            return Operation(number, kind, chance.choice((900, 70 * KIB, 900 * KIB)) + number)
    return Operation(number, kind)


def content(seed: int, path: str, size: int) -> bytes:
    """What a file of this name holds."""
    return random.Random(f"content {seed} {path}").randbytes(size)


def source_sizes(seed: int) -> list[int]:
    """How large the files are that are read."""
    chance = random.Random(f"sources {seed}")
    return [chance.randrange(1, 40 * KIB), 300 * KIB, chance.randrange(1_000_000, 2_500_000)]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
