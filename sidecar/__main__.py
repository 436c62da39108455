"""`sidecar` and `python -m sidecar`.

`run`, `hands`, `supervise` and `health` are dispatched before click is imported: a sandbox waits
for the first three, and a container's health check starts the other every few seconds.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the verb that the command line names, and exit with its status."""
    _open_standard_files()
    verb, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if verb == "run":
        from sidecar.cli.run import main as run

        sys.exit(run(arguments))
    if verb == "hands":
        from sidecar.cli.hands import main as hands

        sys.exit(hands(arguments))
    if verb == "supervise":
        from sidecar.cli.supervise import main as supervise

        sys.exit(supervise(arguments))
    if verb == "health":
        from sidecar.cli.health import main as health

        sys.exit(health(arguments))
    from sidecar.cli.main import main as other

    sys.exit(other(sys.argv[1:]))


def _open_standard_files() -> None:
    """Started with one of them closed, the next socket would become our output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is `fd`


if __name__ == "__main__":
    main()
