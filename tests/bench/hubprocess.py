"""The hub in a process of its own, as `sidecar hub` runs it: `python -m tests.bench.hubprocess`.

Reads the access key from the environment, prints the URL, serves until standard input ends.
"""

from __future__ import annotations

import os
import sys

import anyio
import anyio.to_thread

from sidecar.allocator import tune_malloc
from sidecar.hub import Hub, HubSettings, serve

KEY = "BENCH_ACCESS_KEY"


async def main() -> None:
    tune_malloc()
    async with serve(Hub(HubSettings(access_key=os.environ[KEY]))) as address:
        print(address.client_url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(main)
