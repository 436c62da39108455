"""A controller that is killed: `python killed_client.py URL RUN SHELL`.

Starts the program, prints its exec id, follows its output and says "reading" when some came.
"""

from __future__ import annotations

import sys

import anyio

from sidecar.client import Controller


async def main(url: str, run_id: str, shell: str) -> None:
    async with Controller.connect(url, controller="killed") as controller:
        run = await controller.attach(run_id)
        started = await run.call("exec.start", {"shell": shell})
        print(started["exec"].hex(), flush=True)
        async with run.open("exec.attach", {"exec": started["exec"]}) as call:
            async for _ in call.receiver(1):
                print("reading", flush=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
