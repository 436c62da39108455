"""The keys that leave a terminal without ending what runs in it.

They are written as docker writes them: single characters, or `ctrl-` and one of `a` to `z`,
`@`, `[`, `\\`, `]`, `^`, `_`, joined by commas. What may be the beginning of the sequence is held
back until the next key says, or `HELD` seconds have passed: a program that wants one of these
keys for itself gets it a moment later, not never.
"""

from __future__ import annotations

DEFAULT = "ctrl-p,ctrl-q"
HELD = 0.5  # seconds


def parse_keys(text: str) -> bytes:
    """The bytes of a sequence; empty for "". Raises `ValueError` naming the key."""
    return b"".join(_byte(key) for key in text.split(",")) if text else b""


def _byte(key: str) -> bytes:
    """Control characters as in ASCII: the letter less 64 (`@` is 0, `_` is 31)."""
    prefix, _, letter = key.lower().rpartition("-")
    if len(key) == 1 and key.isascii() and key.isprintable():
        return key.encode()
    if prefix == "ctrl" and len(letter) == 1 and "@" <= letter.upper() <= "_":
        return bytes([ord(letter.upper()) - 64])
    raise ValueError(f"{key!r} is no key: a character, or ctrl- and a letter or one of @[\\]^_")


class KeyWatch:
    """Passes on what is typed, but for the sequence.

    `watch.receive(data)` is what the program gets; then `has_left` says whether the sequence was
    complete, and `is_holding` whether something waits for `release`.
    """

    def __init__(self, keys: bytes) -> None:
        self.has_left = False
        self._keys = keys
        self._held = b""

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    def receive(self, data: bytes) -> bytes:
        """What may pass now. Behind the sequence nothing does."""
        if not self._keys:
            return data
        passed = bytearray()
        for byte in data:
            self._held += bytes([byte])
            while not self._keys.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._keys:
                self.has_left = True
                self._held = b""
                break
        return bytes(passed)

    def release(self) -> bytes:
        """What was held back: nothing followed in time."""
        held, self._held = self._held, b""
        return held
