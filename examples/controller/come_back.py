"""Start a program that outlives us, and go on with its output where we stopped.

    export CLIENT_URL=$(sidecar token --controller me)
    python examples/controller/come_back.py RUN STATE_FILE PROGRAM ...

CLIENT_URL is the hub's client URL with an access token for the controller `me`. The state file
holds the program's exec id and how far its output was printed. While it is there, PROGRAM is
found again, not started again: kill this in the middle, and call it once more. The exit status
is the program's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio

from sidecar.client import Controller, RemoteProcess


def load(file: Path) -> tuple[str, int] | None:
    """Its id, and the offset in its output from which to go on."""
    if not file.exists():
        return None
    state = json.loads(file.read_text())
    return state["id"], state["offset"]


def save(file: Path, remote: RemoteProcess, offset: int) -> None:
    """Replace the file, whole."""
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps({"id": remote.id.hex(), "offset": offset}))
    beside.replace(file)


async def main(run_id: str, file: Path, program: list[str]) -> int:
    async with Controller.connect(os.environ["CLIENT_URL"], controller="me") as controller:
        run = await controller.attach(run_id)
        id, offset = load(file) or ("", 0)
        remote = await (run.find(id) if id else run.start(program))
        save(file, remote, offset)
        async with remote.attach(stdout=offset, stderr=None) as process:
            async for _, chunk in process.output():
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
                save(file, remote, process.stdout.position)
            completed = await process.wait()
    return completed.returncode


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(f"usage: CLIENT_URL=... {sys.argv[0]} RUN STATE_FILE PROGRAM ...")
    status = anyio.run(main, sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    Path(sys.argv[2]).unlink()
    sys.exit(status)
