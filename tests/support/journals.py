"""A journal in a folder, closed in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sidecar.clock import SystemClock
from sidecar.durable.journal import DiskJournal, open_journal
from sidecar.durable.writer import LogWriter
from sidecar.identity import new_id


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[DiskJournal]:
    clock = SystemClock()
    options = {"boot": b"b" * 16, "new_series": lambda: new_id(clock), **options}
    async with LogWriter(sync_delay=0.0) as writer:
        journal = await open_journal(folder, writer, clock, **options)
        yield journal
        await journal.aclose()
