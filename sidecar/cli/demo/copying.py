"""Random bytes go into the sandbox and come out again; digests are compared and rates shown."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import anyio
import anyio.to_thread

from sidecar.cli.demo.report import Line, first_problem
from sidecar.cli.demo.stage import Stage
from sidecar.protocol.limits import MIB

SIZE = 64 * MIB
PATH = "random"


async def copy_bytes(stage: Stage) -> list[Line]:
    """In, out, and the same?"""
    content = await anyio.to_thread.run_sync(os.urandom, SIZE)
    with stage.screen.busy(f"copying {SIZE // MIB} MiB in"):
        began = anyio.current_time()
        written = await stage.run.files.write(PATH, content)
        taken_in = anyio.current_time() - began
    if stage.breaks("files"):
        await anyio.to_thread.run_sync(_flip_a_byte, stage.workspace / PATH)
    with stage.screen.busy(f"copying {SIZE // MIB} MiB out"):
        began = anyio.current_time()
        digest, size = await _read(stage)
        taken_out = anyio.current_time() - began
    await stage.run.files.remove(PATH)
    sent = await anyio.to_thread.run_sync(lambda: hashlib.sha256(content).digest())
    figure = f"in {_rate(taken_in)}, out {_rate(taken_out)}"
    stage.screen.say(f"{figure}, SHA-256 {digest.hex()[:16]}...")
    problem = first_problem(
        (size == SIZE, f"{size} bytes came back, {SIZE} were sent"),
        (written.sha256 == sent, f"{written.sha256.hex()} was written, {sent.hex()} was sent"),
        (digest == sent, f"SHA-256 {digest.hex()} came back, {sent.hex()} was sent"),
    )
    return [Line("files", f"{SIZE // MIB} MiB in and out, bytes unchanged", figure, problem)]


async def _read(stage: Stage) -> tuple[bytes, int]:
    """SHA-256 and number of the bytes that came, hashed here as they come."""
    sha256, size = hashlib.sha256(), 0
    async with stage.run.files.open(PATH) as download:
        async for chunk in download:
            sha256.update(chunk)
            size += len(chunk)
    return sha256.digest(), size


def _flip_a_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(SIZE // 2)
        [byte] = file.read(1)
        file.seek(SIZE // 2)
        file.write(bytes([byte ^ 1]))


def _rate(seconds: float) -> str:
    return f"{SIZE / MIB / seconds:.0f} MiB/s"
