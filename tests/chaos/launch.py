"""Starts one of the processes: `python -m tests.chaos.launch PARENT DEFECT VERB ...`.

It dies with its parent, so that whatever becomes of the conductor leaves nothing behind, and it
may have a defect planted before its own code is loaded. VERB is one of `sidecar`'s, or
`controller` with the file of its settings.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, defect, verb, *rest = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
    if defect != "none":
        from tests.chaos.defects import DEFECTS

        DEFECTS[defect].plant()
    if verb == "controller":
        from tests.chaos import controller

        controller.main(*rest)
        return
    from sidecar.__main__ import main as run_verb

    sys.argv = ["sidecar", verb, *rest]
    run_verb()


if __name__ == "__main__":
    main()
