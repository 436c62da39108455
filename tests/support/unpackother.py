"""Extract as another user: `python unpackother.py UID FOLDER < archive`, started by root.

The interpreter may lie where only root can go, so all that is needed is used once before.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tars import folder, link, member, tar_of, unpack

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        unpack(Path(name), tar_of(folder("d"), member("d/a", b"1"), link("d/l", "a")))
    uid = int(sys.argv[1])
    os.chdir(sys.argv[2])  # what lies above it may be closed to others
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    print(unpack(Path("."), sys.stdin.buffer.read()))
