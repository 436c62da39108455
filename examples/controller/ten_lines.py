"""The client in ten lines: attach to a run, run a program there, and print what it printed.

    export CLIENT_URL=$(sidecar token --controller me)
    python examples/controller/ten_lines.py RUN PROGRAM ...

CLIENT_URL is the hub's client URL with an access token for the controller `me`. The exit status
is the program's.
"""

import os
import sys

import anyio

from sidecar.client import Controller


async def main(run_id: str, program: list[str]) -> int:
    async with Controller.connect(os.environ["CLIENT_URL"], controller="me") as controller:
        run = await controller.attach(run_id)
        completed = await run.exec(program)
        print(completed.stdout.decode(errors="replace"), end="")
        return completed.returncode


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: CLIENT_URL=... {sys.argv[0]} RUN PROGRAM ...")
    sys.exit(anyio.run(main, sys.argv[1], sys.argv[2:]))
