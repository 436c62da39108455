"""Send a large file, run a program on it and see what it changes, search, and take it all home.

    export CLIENT_URL=$(sidecar token --controller me)
    python examples/controller/work_on_files.py RUN FILE PATTERN PROGRAM ...

CLIENT_URL is the hub's client URL with an access token for the controller `me`. FILE goes to the
workspace: break it off, call it again, and it goes on where it stopped. Lines that match PATTERN
are printed, and the workspace comes back as FILE.tar.gz. The exit status is the program's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from sidecar.client import Controller, Run, Watch


async def show(watch: Watch) -> None:
    async for batch in watch:
        if batch.lost:
            print(f"changes may have been missed: {batch.lost}")
        for change in batch.changes:
            print(change.kind, change.path)


async def run_watched(run: Run, program: list[str]) -> int:
    async with run.files.watch() as watch, anyio.create_task_group() as group:
        group.start_soon(show, watch)
        completed = await run.exec(program)
        group.cancel_scope.deadline = anyio.current_time() + 0.5  # what it did last is still told
    return completed.returncode


async def bring_home(run: Run, target: Path) -> None:
    packed = run.files.archive(ignore="git", compress="gzip")  # without what .gitignore names
    async with packed as archive, await anyio.open_file(target, "wb") as file:
        async for chunk in archive:
            await file.write(chunk)
    print(f"{archive.told.entries} entries, {archive.told.skipped_count} left out")


async def main(run_id: str, path: Path, pattern: str, program: list[str]) -> int:
    async with Controller.connect(os.environ["CLIENT_URL"], controller="me") as controller:
        run = await controller.attach(run_id)
        await run.files.upload(path.name, path, upload="derived")  # an id of path and version
        status = await run_watched(run, program)
        for line in (await run.files.search(pattern)).lines:
            print(f"{line.path}:{line.number}: {line.text}")
        await bring_home(run, path.with_name(f"{path.name}.tar.gz"))
        return status


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(f"usage: CLIENT_URL=... {sys.argv[0]} RUN FILE PATTERN PROGRAM ...")
    sys.exit(anyio.run(main, sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
