"""Small secrets in files of ours: replaced whole, and on the disk before anybody relies on them."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_private(path: Path, document: dict[str, object]) -> None:
    """Replace `path`, readable by us alone from its first moment; on the disk when it returns."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
