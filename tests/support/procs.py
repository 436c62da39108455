"""What /proc says of processes (proc(5)): who lives, and what one holds."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

_lengths = count(os.getpid() * 1000 + 10_000_000)


@contextmanager
def sleep_of_its_own() -> Iterator[str]:
    """Seconds, as no other process sleeps them: by this word a `sleep` is found again. What is
    left of them after the block is killed."""
    word = str(next(_lengths))
    try:
        yield word
    finally:
        for pid in alive_with(word):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def alive_with(word: str) -> list[int]:
    """Processes that have `word` among their arguments. A zombie has none any more."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word.encode() in arguments:
            found.append(int(folder.name))
    return found


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds that could leak."""

    descriptors: int
    children: int  # running ones and zombies
    threads: int
    resident: int  # bytes


def held(pid: int) -> Held:
    folder = Path(f"/proc/{pid}")
    tasks = list((folder / "task").iterdir())
    return Held(
        descriptors=len(os.listdir(folder / "fd")),
        children=sum(len((task / "children").read_text().split()) for task in tasks),
        threads=len(tasks),
        resident=int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
    )


def forget_peak(pid: int) -> None:
    """Let `peak` begin anew at what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """Bytes of memory that were resident at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise KeyError("VmHWM")
