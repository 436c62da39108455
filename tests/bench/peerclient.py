"""The peer's own Python client, told by lines of JSON: `PYTHON peerclient.py PORT TOKEN`.

Run by the interpreter of the peer's environment, so nothing of ours can be imported here. An
order is one of

    {"argv": [...], "times": N}               a program, N at once: the characters that each printed
    {"read": [path, ...]}                     files, one after the other: the characters of each
    {"upload": source, "targets": [path ...]} a file to each place: its bytes

and the answer has the seconds that it took, measured on this side of the wire as ours are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from typing import Any

from swerex.runtime.abstract import (  # type: ignore[import-not-found]
    Command,
    ReadFileRequest,
    UploadRequest,
)
from swerex.runtime.remote import RemoteRuntime  # type: ignore[import-not-found]


async def main(port: int, token: str) -> None:
    logging.disable(logging.CRITICAL)
    runtime = RemoteRuntime(host="http://127.0.0.1", port=port, auth_token=token)
    await runtime.wait_until_alive(timeout=60)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "argv" in order:
            answer = await execute(runtime, order)
        elif "read" in order:
            answer = await read(runtime, order["read"])
        else:
            answer = await upload(runtime, order["upload"], order["targets"])
        print(json.dumps(answer), flush=True)


async def execute(runtime: RemoteRuntime, order: dict[str, Any]) -> dict[str, float]:
    command = Command(command=order["argv"])
    began = time.perf_counter()
    answers = await asyncio.gather(*[runtime.execute(command) for _ in range(order["times"])])
    took = time.perf_counter() - began
    assert all(answer.exit_code == 0 for answer in answers), answers[0]
    return {"seconds": took, "printed": only(len(answer.stdout) for answer in answers)}


async def read(runtime: RemoteRuntime, paths: list[str]) -> dict[str, float]:
    began = time.perf_counter()
    sizes = [len((await runtime.read_file(ReadFileRequest(path=path))).content) for path in paths]
    return {"seconds": time.perf_counter() - began, "size": only(sizes)}


async def upload(runtime: RemoteRuntime, source: str, targets: list[str]) -> dict[str, float]:
    began = time.perf_counter()
    for target in targets:
        await runtime.upload(UploadRequest(source_path=source, target_path=target))
    took = time.perf_counter() - began
    return {"seconds": took, "size": only(os.path.getsize(target) for target in targets)}


def only(values: Any) -> int:
    """The one value that all of them have."""
    found = set(values)
    assert len(found) == 1, found
    value: int = found.pop()
    return value


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
