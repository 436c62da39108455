"""What every verb that is parsed without click says of a command line that makes no sense."""

from __future__ import annotations


class BadUsage(Exception):
    """The command line cannot be understood; the sentence says why and what would be right."""
