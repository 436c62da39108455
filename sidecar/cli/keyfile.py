"""Keys in files of ours: what mints tokens stays off the terminal.

That of a hub is a connection string, as the Azure portal shows it and the Azure SDKs take it:

    Endpoint=https://NAME.webpubsub.azure.com;AccessKey=...;Version=1.0;

or nothing but a key. That of a platform is JSON: {"endpoint": "https://HOST/PATH", "key": "..."}.
"""

from __future__ import annotations

import json
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


@dataclass(frozen=True, slots=True)
class PlatformKey:
    """A platform key, and the endpoint that takes it."""

    endpoint: str
    key: str = field(repr=False)


def read_platform_key(path: Path) -> PlatformKey:
    """The platform key in a file. Raises `SettingsError`, without quoting what is there."""
    try:
        found = json.loads(path.read_bytes())
        return PlatformKey(str(found["endpoint"]), str(found["key"]))
    except OSError as error:
        raise SettingsError(f"platform key file {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SettingsError(
            f'platform key file {path}: JSON with "endpoint" and "key" expected'
        ) from None


def write_platform_key(path: Path, key: PlatformKey) -> None:
    write_key(path, json.dumps({"endpoint": key.endpoint, "key": key.key}))


def write_key(path: Path, content: str) -> None:
    """Replace the file, readable by us alone from its first moment."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w") as file:
            file.write(content + "\n")
        beside.replace(path)
    except OSError as error:
        raise SettingsError(f"key file {path}: {error.strerror}") from None
