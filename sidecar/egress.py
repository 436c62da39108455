"""How much content leaves: counted for each call and for the run, and held to what policy allows.

The channel is there to control, not to carry the source code away. What counts is content: the
bytes of every stream that is sent, the answers of commands that look at files, and program output
that stands in an answer. What a command answers of itself (a status, a size, an error) does not,
so how a program ended is told in any case.

A byte counts when it is read to be sent, once: what a drop makes us send again is the same byte.
Only a restart may count some twice, for how much of a stream had been sent before is not known;
none goes uncounted.
"""

from __future__ import annotations

from typing import Any

from sidecar.egressfile import EgressFile
from sidecar.policy import Policy, Spent
from sidecar.protocol.streams import Piece
from sidecar.streaming import Source


class Egress:
    """The count of a run, which goes on in `file` from life to life."""

    def __init__(self, policy: Policy, file: EgressFile | None = None) -> None:
        self.policy = policy
        self.spent = 0 if file is None else file.spent
        self._file = file

    def of_call(self) -> CallEgress:
        return CallEgress(self)

    def count(self, size: int) -> None:
        self.spent += size
        if self._file is not None:
            self._file.note(self.spent)

    def close(self) -> None:
        """Blocks until the disk has the count: for a thread. What is counted later is lost."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def facts(self) -> dict[str, Any]:
        """What `sidecar.info` tells: bytes; no limit is None."""
        limits = self.policy.egress
        return {"spent": self.spent, "call_limit": limits.call, "run_limit": limits.run}


class CallEgress:
    """The count of one call, which is part of that of its run."""

    def __init__(self, run: Egress) -> None:
        self.spent = 0
        self._run = run

    def check(self, size: int) -> None:
        """Raises `denied` if `size` more bytes would be too many. Nothing is counted."""
        self._run.policy.decide_egress(size, self._all).enforce()

    def may_take(self, size: int) -> bool:
        """Count `size` bytes if they may leave; whether they may."""
        if not self._run.policy.decide_egress(size, self._all).allowed:
            return False
        self._count(size)
        return True

    def take(self, size: int) -> None:
        """Count `size` bytes, or raise `denied` and count none."""
        self.check(size)
        self._count(size)

    def take_some(self, size: int) -> int:
        """Count as many of `size` bytes as may leave, and say how many. Raises `denied` for none
        of them."""
        left = self._run.policy.egress_left(self._all)
        granted = size if left is None else min(size, left)
        if size and not granted:
            self.check(size)
        self._count(granted)
        return granted

    def note_earlier(self, size: int) -> None:
        """An earlier life of the sidecar sent `size` bytes of this call, and counted them."""
        self.spent += size

    @property
    def _all(self) -> Spent:
        return Spent(call=self.spent, run=self._run.spent)

    def _count(self, size: int) -> None:
        self.spent += size
        self._run.count(size)


class MeteredSource:
    """A source whose bytes are counted when they are read for the first time. Those beyond what
    is allowed end the stream with `denied`; those before are sent."""

    def __init__(
        self, source: Source, egress: CallEgress, *, start: int = 0, is_resumed: bool = False
    ) -> None:
        self._source = source
        self._egress = egress
        self._since = start  # everything from here
        self._counted = start  # to here has been counted
        self._is_resumed = is_resumed  # what its receiver has was counted in an earlier life

    async def read(self, offset: int, size: int) -> Piece:
        """See `streaming.Source`."""
        if self._is_resumed:
            self._is_resumed = False
            self._egress.note_earlier(max(0, offset - self._counted))
            self._since = self._counted = max(self._counted, offset)
        elif offset < self._since:  # what it had, it said, and wants all the same
            self._since = self._counted = offset
        piece = await self._source.read(offset, size)
        stop = piece.offset + len(piece.data)
        fresh = stop - max(piece.offset, self._counted)
        if fresh > 0:
            refused = fresh - self._egress.take_some(fresh)
            self._counted = stop - refused
            if refused:
                return Piece(piece.offset, piece.data[: len(piece.data) - refused])
        return piece

    def release(self, offset: int) -> None:
        self._source.release(offset)

    async def aclose(self) -> None:
        await self._source.aclose()
