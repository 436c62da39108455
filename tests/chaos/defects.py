"""Defects that are planted to see whether the suite finds them.

Each replaces one thing in a process before it begins: what its name says is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sidecar.protocol import envelope as wire

LATE = 300  # bytes of output that a spool forgets to note


@dataclass(frozen=True, slots=True)
class Defect:
    """`plant` is called in core, in hands and in the controller."""

    what: str
    plant: Callable[[], None]


def _result_not_repeated() -> None:
    from sidecar.dispatch import Dispatcher

    ask = Dispatcher.ask

    def ask_once(self: Any, request: wire.Ask, origin: Any) -> None:
        known = self._open.get(request.id)
        if known is not None and known.result is None:
            ask(self, request, origin)

    Dispatcher.ask = ask_once  # type: ignore[method-assign]


def _receipt_skipped() -> None:
    from sidecar.durable.receipts import DiskReceipts
    from sidecar.protocol.receiptlog import Kind

    append = DiskReceipts._append

    def append_ends(self: Any, kind: Kind, *rest: Any, **options: Any) -> Any:
        """Those that would say that a call came, and that it began, are not written."""
        if kind in (Kind.ACCEPTED, Kind.STARTED):
            return self._log.written
        return append(self, kind, *rest, **options)

    DiskReceipts._append = append_ends  # type: ignore[method-assign]


def _cursor_off_by_one() -> None:
    from sidecar.durable.journal import DiskJournal

    open_reader = DiskJournal.open_reader

    def open_behind(self: Any, name: Any, *, after: int | None, **options: Any) -> Any:
        if after is not None and 0 < after < self.last:
            after += 1
        return open_reader(self, name, after=after, **options)

    DiskJournal.open_reader = open_behind  # type: ignore[method-assign]


def _rewind_left_out() -> None:
    from sidecar.protocol.streams import SendStream

    resume = SendStream.resume

    def stay(self: Any, *told: int) -> bool:
        next, begins_anew = self.next, resume(self, *told)
        self.next = max(next, self.next)
        return begins_anew

    SendStream.resume = stay  # type: ignore[method-assign]


def _bytes_lost_on_kill() -> None:
    from sidecar.spoolfile import SpoolFile

    note_size = SpoolFile.note_size

    def note_late(self: Any, size: int) -> None:
        note_size(self, max(0, size - LATE))

    SpoolFile.note_size = note_late  # type: ignore[method-assign]


DEFECTS: dict[str, Defect] = {
    "result-not-repeated": Defect("an ended call is not answered again", _result_not_repeated),
    "receipt-skipped": Defect("what is accepted is not written", _receipt_skipped),
    "cursor-off-by-one": Defect("a reader begins one event too late", _cursor_off_by_one),
    "rewind-left-out": Defect(
        "a stream does not go back to where its receiver is", _rewind_left_out
    ),
    "bytes-lost-on-kill": Defect("a spool's size is noted late", _bytes_lost_on_kill),
}
