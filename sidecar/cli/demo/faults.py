"""Ways to break each promise for real.

A check that cannot fail has checked nothing. `SIDECAR_DEMO_BREAK=<name>` breaks the promise of
that line, and the demo must then end with 1 and name it; the tests do this for every line.

Most promises are broken where they are checked, by doing there what a careless program would
do. Two belong to the sidecar alone: these programs run it as `python -m sidecar` does, but with
its confinement taken out, or with a port opened in the same process.
"""

from __future__ import annotations

import os

from sidecar.cli.childprocess import interpreter

_MAIN = """
import runpy
runpy.run_module("sidecar", run_name="__main__", alter_sys=True)
"""

_WITHOUT_CONFINEMENT = """
import os
from sidecar.hands.local.beneath import Beneath

def resolve(self, path, *, follow=True):
    return os.open(os.path.join(self.path, os.fsencode(path)), os.O_PATH | os.O_CLOEXEC)

Beneath.resolve = resolve
"""

_WITH_A_PORT = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
"""

_SABOTAGE = {"confined": _WITHOUT_CONFINEMENT, "ports": _WITH_A_PORT}


def sidecar_command(broken: str | None) -> list[str]:
    """How the demo starts its sidecar: as anybody would, unless a promise of it is broken."""
    start = ["-c", _SABOTAGE[broken] + _MAIN] if broken in _SABOTAGE else ["-m", "sidecar"]
    return [*interpreter(), *start, "run", "--with-parent", str(os.getpid())]
