"""Platform keys and run tokens: made here, kept as hashes, compared in constant time.

    spk_<id>_<secret>    a platform key: starts and ends runs, makes tokens for controllers
    srt_<id>_<secret>    a run token: gets the next token of one sidecar, once

The id, 16 hex digits, only finds the hash to compare with and opens nothing; so looking it up
may take any time. The secret has 256 bits of chance, which is why a plain SHA-256 is enough and
a slow hash for passwords would only help who wants to keep us busy (RFC 9106 §1). The prefix lets
tools that search for leaked secrets find ours.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

ID_BYTES = 8
SECRET_BYTES = 32
DIGEST_BYTES = 32

_SECRET = re.compile(r"(spk|srt)_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class Kind(StrEnum):
    """What a secret opens; the value begins its text."""

    PLATFORM_KEY = "spk"
    RUN_TOKEN = "srt"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a secret: enough to know it again, too little to use it."""

    id: str
    digest: bytes = field(repr=False)


NOBODY = Kept("", bytes(DIGEST_BYTES))  # what an unknown secret is compared with


def make(kind: Kind) -> tuple[str, Kept]:
    """A new secret, to be given away and forgotten, and what to keep of it."""
    id = secrets.token_hex(ID_BYTES)
    text = f"{kind}_{id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return text, Kept(id, _digest(text))


def keep(text: str, kind: Kind) -> Kept | None:
    """What to keep of a secret that was made before; None if it is none of this kind."""
    id = id_of(text, kind)
    return Kept(id, _digest(text)) if id else None


def id_of(text: str, kind: Kind) -> str:
    """The id in a presented secret; empty if it is none of this kind."""
    found = _SECRET.fullmatch(text)
    return found[2] if found is not None and found[1] == kind else ""


def is_same(text: str, kept: Kept) -> bool:
    """Whether `text` is the secret of which `kept` was kept; takes as long if it is not."""
    return hmac.compare_digest(_digest(text), kept.digest)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
