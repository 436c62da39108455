"""Copy a folder into a sandbox and run its tests there, with their output as it comes.

    export CLIENT_URL=$(sidecar token --controller me)
    python examples/controller/run_tests.py RUN FOLDER [PROGRAM ...]

CLIENT_URL is the hub's client URL with an access token for the controller `me`. PROGRAM is what
runs in the copied folder, `python3 -m unittest -v` if none is given. The exit status is its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from sidecar.client import Controller, Run

PROGRAM = ["python3", "-m", "unittest", "-v"]


def files_below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


async def copy(run: Run, folder: Path) -> int:
    """Every file below `folder`, with its mode; how many there were."""
    files = files_below(folder)
    for path in files:
        target = Path(folder.name, path.relative_to(folder))
        fd = os.open(path, os.O_RDONLY)  # `upload` reads it in constant memory, and closes it
        await run.files.upload(
            os.fsencode(target), fd, mode=path.stat().st_mode & 0o777, parents=True
        )
    return len(files)


async def main(run_id: str, folder: Path, program: list[str]) -> int:
    async with Controller.connect(os.environ["CLIENT_URL"], controller="me") as controller:
        run = await controller.attach(run_id)
        print(f"{await copy(run, folder)} files copied", flush=True)
        async with run.process(program, cwd=folder.name) as process:
            async for number, chunk in process.output():
                stream = sys.stdout.buffer if number == 1 else sys.stderr.buffer
                stream.write(chunk)
                stream.flush()
            return (await process.wait()).returncode


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: CLIENT_URL=... {sys.argv[0]} RUN FOLDER [PROGRAM ...]")
    run_id, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    sys.exit(anyio.run(main, run_id, folder, sys.argv[3:] or PROGRAM))
