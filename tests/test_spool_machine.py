"""A spool whose process is killed again and again, on a disk that fails, against a model that
keeps every byte.

To be killed is to be dropped without a word: what was stored in the mapped page and written to the
file is what the next one finds, as after `kill -9`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from random import Random

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.clock import ManualClock
from sidecar.protocol.limits import SPOOL_RANGES
from sidecar.spool import Spool
from sidecar.spoolbudget import SpoolBudget
from sidecar.spoolfile import PAGE, SpoolFile

HEAD, TAIL = 60, 100
CONTENT = Random(3).randbytes(20_000)


class Killed(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool"
        self.dropped: list[Spool] = []  # their processes were killed
        self.printed = 0
        self.lost: set[int] = set()  # offsets that no disk took
        self.only_in_memory: set[int] = set()  # of these some
        self.oldest = 0  # what lies between the head and this may be overwritten
        self.gaps: list[int] = []
        self.has_ended = False
        self.spool = Spool(self.path, ManualClock(), SpoolBudget(), head=HEAD, tail=TAIL)

    # Printing ----------------------------------------------------------------------------

    def take(self, size: int) -> bytes:
        data = CONTENT[self.printed : self.printed + size]
        self.printed += size
        self.oldest = max(self.oldest, self.printed - TAIL)
        return data

    @precondition(lambda self: not self.has_ended)
    @rule(size=st.integers(1, TAIL))
    def it_prints(self, size: int) -> None:
        self.spool.expect(size)
        self.spool.write(self.take(size))

    @precondition(lambda self: not self.has_ended)
    @rule()
    def nothing_comes(self) -> None:
        self.spool.expect(TAIL)
        self.spool.expect(0)

    @precondition(lambda self: not self.has_ended and self.printed > 0)
    @rule(size=st.integers(1, TAIL))
    def the_disk_is_full(self, size: int) -> None:
        file = self.spool._file
        assert file is not None
        ours, full = os.dup(file.fd), os.open("/dev/full", os.O_RDWR)
        os.dup2(full, file.fd)
        before = self.printed
        self.spool.write(self.take(size))
        os.dup2(ours, file.fd)
        for fd in (ours, full):
            os.close(fd)
        memory = self.spool._memory_limit
        self.lost |= {at for at in range(before, self.printed) if at >= memory}
        self.only_in_memory |= {at for at in range(before, self.printed) if at < memory}

    @precondition(lambda self: not self.has_ended and self.path.exists())
    @rule()
    def it_ends(self) -> None:
        self.spool.end()
        self.has_ended = True

    # Being killed ------------------------------------------------------------------------

    def reopen(self) -> None:
        self.dropped.append(self.spool)
        self.lost |= self.only_in_memory
        self.only_in_memory = set()
        self.spool = Spool(
            self.path,
            ManualClock(),
            SpoolBudget(),
            head=1,  # the file knows better
            tail=1,
            reopened=SpoolFile.reopen(self.path),
        )

    @precondition(lambda self: self.path.exists())
    @rule()
    def it_is_killed(self) -> None:
        self.reopen()

    @precondition(lambda self: not self.has_ended)
    @rule(most=st.integers(1, TAIL), came=st.integers(1, TAIL))
    def it_is_killed_with_bytes_in_its_hands(self, most: int, came: int) -> None:
        """They may be in the file already, over what was oldest, and nobody knows of them."""
        self.spool.expect(most)
        file, size = self.spool._file, self.printed
        assert file is not None
        for offset in range(size, size + min(most, came)):
            position = offset if offset < HEAD else HEAD + (offset - HEAD) % TAIL
            os.pwrite(file.fd, b"?", PAGE + position)
        self.oldest = max(self.oldest, size + most - TAIL)
        if not self.gaps or self.gaps[-1] != size:
            self.gaps.append(size)
        self.reopen()

    # What holds --------------------------------------------------------------------------

    @invariant()
    def what_is_read_is_what_was_printed(self) -> None:
        assert self.spool.size == self.printed
        assert self.spool.gaps == self.gaps
        found = anyio.run(self.read_all)
        kept = set(range(min(self.printed, HEAD)))
        kept |= set(range(max(min(HEAD, self.printed), self.oldest), self.printed))
        if len(self.lost) < SPOOL_RANGES:  # else holes may have grown over what is there
            assert found.keys() == kept - self.lost
        assert found.keys() <= kept - self.lost
        assert all(CONTENT[at] == byte for at, byte in found.items())

    async def read_all(self) -> dict[int, int]:
        found: dict[int, int] = {}
        offset = 0
        while True:
            piece = await self.spool.read(offset, 50)
            found |= {piece.offset + n: byte for n, byte in enumerate(piece.data)}
            if not piece.data:
                assert piece.offset == self.printed
                assert piece.ended == self.has_ended
                return found
            offset = piece.offset + len(piece.data)

    def teardown(self) -> None:
        for spool in (self.spool, *self.dropped):
            spool.close()
        self.folder.cleanup()


TestKilled = Killed.TestCase
TestKilled.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
