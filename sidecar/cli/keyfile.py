"""The access key of a hub in a file of ours: what mints tokens stays off the terminal.

The file holds a connection string, as the Azure portal shows it and the Azure SDKs take it:

    Endpoint=https://NAME.webpubsub.azure.com;AccessKey=...;Version=1.0;

or nothing but a key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.errors import SettingsError


@dataclass(frozen=True, slots=True)
class HubKey:
    """What a connection string says; without one, no endpoint."""

    access_key: str = field(repr=False)
    endpoint: str | None


def read_key(path: Path) -> HubKey:
    """The key in a file. Raises `SettingsError`, without quoting what is there."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise SettingsError(f"key file {path}: {reason}") from None
    if "AccessKey=" not in text:
        if not text or "=" in text.rstrip("=") or len(text.split()) != 1:
            raise SettingsError(f"key file {path}: neither a connection string nor a key")
        return HubKey(text, None)
    pairs = dict(part.partition("=")[::2] for part in text.split(";") if part)
    return HubKey(pairs["AccessKey"], pairs.get("Endpoint", "").rstrip("/") or None)


def write_key(path: Path, connection_string: str) -> None:
    """Replace the file, readable by us alone from its first moment."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w") as file:
            file.write(connection_string + "\n")
        beside.replace(path)
    except OSError as error:
        raise SettingsError(f"key file {path}: {error.strerror}") from None
