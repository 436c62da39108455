"""The peer's own Python client, told by lines of JSON: `PYTHON peerclient.py PORT TOKEN`.

Run by the interpreter of the peer's environment, so nothing of ours can be imported here. An
order is `{"argv": [...], "times": N}`; the answer has the seconds that N programs at once took,
measured on this side of the wire as ours are, and the characters that each printed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

from swerex.runtime.abstract import Command  # type: ignore[import-not-found]
from swerex.runtime.remote import RemoteRuntime  # type: ignore[import-not-found]


async def main(port: int, token: str) -> None:
    logging.disable(logging.CRITICAL)
    runtime = RemoteRuntime(host="http://127.0.0.1", port=port, auth_token=token)
    await runtime.wait_until_alive(timeout=60)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        command = Command(command=order["argv"])
        began = time.perf_counter()
        answers = await asyncio.gather(*[runtime.execute(command) for _ in range(order["times"])])
        took = time.perf_counter() - began
        assert all(answer.exit_code == 0 for answer in answers), answers[0]
        printed = {len(answer.stdout) for answer in answers}
        assert len(printed) == 1, printed
        print(json.dumps({"seconds": took, "printed": printed.pop()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
