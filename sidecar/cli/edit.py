"""`sidecar edit`: a file of the workspace in the editor of this machine.

The file comes into a private folder under its own name, by which editors know its language. The
connection is not held while somebody edits. What was edited goes back on condition that the file
is still what it was; where it is not, or cannot be reached, the edited file is kept.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from sidecar.cli.output import FAILED, complain, explain, fail_usage, wire_path
from sidecar.cli.target import Target, on_run, target_options
from sidecar.errors import CallError, Code, LimitExceeded

if TYPE_CHECKING:
    from sidecar.client import Run

EDITOR = "vi"  # where neither $VISUAL nor $EDITOR says (POSIX, as for mailx and crontab)
LARGEST = 64 << 20  # bytes; editors take less, and it is held in memory on its way back


@click.command()
@click.argument("path")
@target_options
def edit(target: Target, path: str) -> int:
    """Edit a file of the workspace, or a new one, with $VISUAL, $EDITOR or vi.

    \b
    Examples:
      sidecar edit src/app.py
      EDITOR='code --wait' sidecar edit README.md

    Nothing is written if nothing was changed, or if the editor fails; its status is then ours. If
    somebody else changed the file meanwhile, theirs stays, and yours is kept here.
    """
    name = os.path.basename(path)
    if name in ("", ".", ".."):
        raise fail_usage(f"PATH {path!r} names no file")
    folder = Path(tempfile.mkdtemp(prefix="sidecar-edit-"))  # 0700
    editing = _Editing(target, path, folder / name)
    try:
        return editing.run()
    finally:
        if not editing.is_kept:
            shutil.rmtree(folder, ignore_errors=True)


class _Editing:
    """One file, from there and back."""

    def __init__(self, target: Target, path: str, file: Path) -> None:
        self.is_kept = False  # there is something in the file that is nowhere else
        self._target = target
        self._path = path
        self._file = file
        self._before: bytes | None = None  # SHA-256 of what was there; None: nothing

    def run(self) -> int:
        """The exit status."""
        status = on_run(self._target, self._fetch) or _edit(self._file)
        if status:
            return status
        if not self._file.exists() or _digest(self._file) == self._before:
            complain("nothing was changed, and nothing is written")
            return 0
        self.is_kept = True
        try:
            status = on_run(self._target, self._write_back)
        except Exception as error:
            self._explain(error)
            return FAILED
        self.is_kept = status != 0
        if self.is_kept:
            self._say_where()
        return status

    async def _fetch(self, run: Run) -> None:
        try:
            async with run.files.open(wire_path(self._path)) as download:
                if download.size > LARGEST:
                    raise LimitExceeded("bytes to edit", size=download.size, limit=LARGEST)
                size = 0  # counted, for the one that was told may not be true
                with _create(self._file) as file:
                    async for chunk in download:
                        size += len(chunk)
                        if size > LARGEST:
                            raise LimitExceeded("bytes to edit", size=size, limit=LARGEST)
                        file.write(chunk)
        except CallError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return  # a new one
        self._before = _digest(self._file)

    async def _write_back(self, run: Run) -> None:
        content = self._file.read_bytes()
        path = wire_path(self._path)
        if self._before is None:
            await run.files.write(path, content, if_none_match="*")
        else:
            await run.files.write(path, content, if_match=self._before)

    def _explain(self, error: Exception) -> None:
        if isinstance(error, CallError) and error.code is Code.PRECONDITION_FAILED:
            complain(f"{self._path} was changed by somebody else meanwhile, and is left as it is")
        else:
            explain(error)
        self._say_where()

    def _say_where(self) -> None:
        here, there = shlex.quote(str(self._file)), shlex.quote(self._path)
        options = self._target.said()
        complain(f"what you wrote is kept in {here}")
        complain(f"  to compare: sidecar cat {options}{there} | diff - {here}")
        complain(f"  to write it all the same: sidecar cp {options}{here} :{there}")


def _edit(file: Path) -> int:
    """Run the editor, which gets the terminal; its status as a shell has it."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or EDITOR
    # By a shell, because it may have arguments. One that dies of Ctrl-C would hide its status.
    command = ["/bin/sh", "-c", f'trap : INT QUIT; {editor} "$@"', editor, str(file)]
    with _interrupts_are_for_the_editor():
        status = subprocess.call(command)
    if status < 0:
        status = 128 - status
    if status:
        complain(f"the editor ended with status {status}: nothing is written")
    return status


@contextmanager
def _interrupts_are_for_the_editor() -> Iterator[None]:
    """Ctrl-C and Ctrl-\\ come to us as well. A handler and not SIG_IGN, which would be inherited
    (execve(2))."""
    numbers = (signal.SIGINT, signal.SIGQUIT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _create(file: Path) -> BinaryIO:
    return open(file, "xb", opener=lambda path, flags: os.open(path, flags, 0o600))
