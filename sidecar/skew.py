"""How far our clock is from somebody else's, told from the `Date` of an HTTP answer.

A clock that is hours off makes good tokens look expired and expired ones good, and nothing about
either says why. The header has whole seconds (RFC 9110 §6.6.1) and may have travelled for a
while, so only a distance that harms is told.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime

HARMLESS = 60.0  # seconds; tokens live for minutes


def skew_of(date: str | None, *, wall: float) -> float:
    """Seconds that `wall`, our time, is ahead of the `Date` header; below 0, behind. 0 if it is
    near, or if the header says nothing."""
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    skew = wall - theirs
    return skew if abs(skew) > HARMLESS else 0.0


def describe(skew: float, whose: str) -> str:
    """`skew` in words, with what to do; "" for none."""
    if not skew:
        return ""
    direction = "ahead of" if skew > 0 else "behind"
    return f"the clock of this machine is {in_words(skew)} {direction} {whose}: set it"


def in_words(seconds: float) -> str:
    """`90 s`, `45 min`, `3.5 h` or `12 days`, whatever the sign."""
    size = abs(seconds)
    if size < 600:
        return f"{size:.0f} s"
    if size < 7200:
        return f"{size / 60:.0f} min"
    if size < 172800:
        return f"{size / 3600:.1f} h"
    return f"{size / 86400:.0f} days"
