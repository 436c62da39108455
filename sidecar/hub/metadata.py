"""The limits of message metadata (Azure/azure-webpubsub, tools/emulator)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sidecar.errors import Invalid, LimitExceeded

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2

MAX_KEY = 256  # bytes
MAX_VALUE = 1024
MAX_TOTAL = 8192


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raises unless every key is an ASCII token, every value ASCII, and none too long."""
    total = 0
    for key, value in metadata.items():
        if not _TOKEN.fullmatch(key) or not value.isascii():
            raise Invalid(f"metadata {key[:40]!r}: expected a token as its key and ASCII text")
        for what, text, limit in (("key", key, MAX_KEY), ("value", value, MAX_VALUE)):
            if len(text) > limit:
                raise LimitExceeded(f"bytes of a metadata {what}", size=len(text), limit=limit)
        total += len(key) + len(value)
    if total > MAX_TOTAL:
        raise LimitExceeded("bytes of metadata", size=total, limit=MAX_TOTAL)
