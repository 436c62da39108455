"""Follow what happens in a sandbox, and go on next time where it stopped.

    export CLIENT_URL=$(sidecar token --controller me)
    python examples/controller/follow_events.py RUN CURSOR_FILE

CLIENT_URL is the hub's client URL with an access token for the controller `me`. The cursor is
written after each event, so an event that was printed just before a crash is printed again, and
none is passed over.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from sidecar.client import Controller, Cursor, Event


def load(file: Path) -> Cursor:
    """Where to go on; at the beginning if there is no file yet."""
    return Cursor.parse(file.read_text()) if file.exists() else Cursor()


def save(file: Path, cursor: Cursor) -> None:
    """Replace the file; whoever reads it sees the old or the new cursor, whole."""
    beside = file.with_suffix(".new")
    beside.write_text(str(cursor))
    beside.replace(file)


async def main(run_id: str, file: Path) -> None:
    async with Controller.connect(os.environ["CLIENT_URL"], controller="me") as controller:
        run = await controller.attach(run_id)
        async with run.events(after=load(file)) as events:
            async for item in events:
                if isinstance(item, Event):
                    print(item.seq, item.name, item.data, flush=True)
                else:
                    print(f"{item.first} to {item.last or '?'}: gone ({item.why})", flush=True)
                save(file, item.cursor)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: CLIENT_URL=... {sys.argv[0]} RUN CURSOR_FILE")
    anyio.run(main, sys.argv[1], Path(sys.argv[2]))
