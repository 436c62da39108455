"""One output of a program: pipe, spool, and whoever reads it.

Of the controller that started the program the latest reader sets the pace: while it makes
progress the program waits for it, and 30 s after its last progress `on_full` decides. The
others hold nobody.

A reader that follows gets what the program printed until its end, and what its children print
in the next moment. The pipe is read on for as long as somebody holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from sidecar.hands.pipeio import DIRECT, PipeIO
from sidecar.pipes import SMALL_READ, SMALL_TERMINAL_READ, PipeReader
from sidecar.processes.source import SpoolSource
from sidecar.spool import Spool

LINGER = 0.1  # seconds after a program's end that its children's output still counts as its own

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


class Output:
    """One of a program's outputs, by its stream number."""

    def __init__(
        self,
        n: int,
        spool: Spool,
        *,
        is_terminal: bool,
        on_data: Callable[[], None],
        spawn: Spawn,
        io: PipeIO = DIRECT,
    ) -> None:
        self.n = n
        self.spool = spool
        self.on_grown: Callable[[], None] | None = None  # somebody else to tell, besides readers
        self.reader = PipeReader(
            spool,
            on_data=self._note_data,
            on_full=self._wait_room,
            small=SMALL_TERMINAL_READ if is_terminal else SMALL_READ,
            io=io,
        )
        self._on_data = on_data
        self._spawn = spawn
        self._sources: set[SpoolSource] = set()
        self._pacer: SpoolSource | None = None
        self._end: int | None = None  # size at which the program's own output ended

    @property
    def size(self) -> int:
        """Bytes printed so far."""
        return self.spool.size

    @property
    def readers(self) -> int:
        """How many read it now."""
        return len(self._sources)

    @property
    def is_full(self) -> bool:
        """Whether what is in the pipe waits for a reader to make room."""
        return not self.reader.is_over and self.spool.room == 0

    # Reading from the pipe ---------------------------------------------------------------

    def connect(self, fd: int) -> None:
        """Read from this pipe from here on."""
        self.reader.connect(fd)

    def lose(self) -> None:
        """If there is no pipe, there will be none."""
        self.reader.lose()

    def flush(self) -> bool:
        """Take what is in the pipe now; whether that was the end of it."""
        self.reader.flush()
        return self.reader.is_finished

    async def finish(self) -> None:
        """The program has ended: take what it left in the pipe, however long that takes, and
        what its children print in the next moment."""
        owed = self.reader.taken + self.reader.waiting
        while self.reader.taken < owed and not self.reader.is_over:
            await self.reader.progress.wait()
        with anyio.move_on_after(LINGER):
            await self.reader.wait_finished()

    def settle(self) -> None:
        """What was printed until now is what readers who follow get. The pipe is read on."""
        self._end = self.spool.size
        for source in self._sources:
            source.end_at(self._end)

    def unsettle(self) -> None:
        """The program runs after all."""
        self._end = None

    def close(self) -> None:
        """Nobody may read it any more, and nobody does: release pipe and spool, and leave what
        is in them to a later process."""
        self.spool.close()
        self.reader.stop()

    def abandon(self) -> PipeReader | None:
        """Nobody will want it again. The reader, if a child still holds the pipe: it reads on
        and keeps nothing."""
        self.reader.discard()
        self.spool.close()
        return None if self.reader.is_finished else self.reader

    def _note_data(self) -> None:
        self._on_data()
        if self.on_grown is not None:
            self.on_grown()

    def _wait_room(self) -> None:
        self._spawn(self.reader.wait_room)

    # Readers -----------------------------------------------------------------------------

    def source(
        self, offset: int, *, paces: bool, follow: bool = True, remembers: bool = False
    ) -> SpoolSource:
        """A reader from `offset` on. With `paces` the program waits for it, and no longer for
        the one before. Without `follow` it ends with what was printed until now. `remembers`:
        see `SpoolSource`.

        Raises `Invalid` for an offset behind what was printed.
        """
        self.spool.check_offset(offset)
        source = SpoolSource(
            self.spool,
            offset,
            on_release=self._note_release,
            on_close=self._note_close,
            remembers=remembers,
        )
        if self._end is not None or not follow:
            source.end_at(self.spool.size)
        self._sources.add(source)
        if paces:
            self._pacer = source
            self.spool.follow(offset)
        return source

    def _note_release(self, source: SpoolSource, offset: int) -> None:
        if source is self._pacer:
            self.spool.progress(offset)

    def _note_close(self, source: SpoolSource) -> None:
        self._sources.discard(source)
        if source is self._pacer:
            self._pacer = None
            self.spool.unfollow()

    def describe(self, source: SpoolSource | None = None) -> dict[str, Any]:
        """What an answer says of it: how much there is, for `source` or for anybody who comes
        now, and how many bytes of that were lost to it."""
        seen = self.spool if source is None else source
        found: dict[str, Any] = {"size": seen.size, "dropped": seen.dropped}
        if self.spool.disk_error is not None:
            found["disk_error"] = self.spool.disk_error
        if gaps := self.spool.gaps:
            found["gaps"] = [{"at": at, "bytes": None, "why": "killed"} for at in gaps]
        return found
