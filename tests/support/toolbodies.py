"""Bodies of tools for tests, found by the names that a test puts into `TOOLS`."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from typing import Any

from sidecar.hands.local.child import Child
from sidecar.hands.local.roots import Roots
from sidecar.hands.local.stop import Stop

Options = Mapping[str, Any]


def count(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    for number in range(options["to"]):
        stop.write(fd, b"%d\n" % number)
    return {"counted": options["to"], "of": path}


def measure(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    size = 0
    while data := stop.read(fd, 65536):
        size += len(data)
    return {"size": size}


def pour(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    while True:
        stop.write(fd, bytes(65536))


def fail_late(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    stop.write(fd, b"something")
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def wait(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    stop.wait()
    return {}


def miss(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    os.stat("/proc/self/fd/no such")
    return {}


def break_down(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    raise ZeroDivisionError


def hang(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    time.sleep(options["seconds"])
    return {}


def run(roots: Roots, path: Any, options: Options, fd: int, stop: Stop) -> dict[str, Any]:
    with roots.resolved(path) as folder, Child(options["argv"], directory=folder) as child:
        stop.write(fd, b"%d\n" % child.pid)
        while data := child.read(stop, 65536):
            stop.write(fd, data)
        return {"status": child.wait(stop), "error": bytes(child.error)}
