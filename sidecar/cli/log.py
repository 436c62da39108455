"""The log on stderr, for the verbs that stay: `run`, `hub`, `dev`.

2026-01-31T12:00:00.123Z info sidecar.channel: channel open: wss://...
"""

from __future__ import annotations

import logging
import sys
import time


def log_to_stderr(level: str) -> None:
    """`time level name: message`. Libraries at warning: what they log of HTTP may hold tokens."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("sidecar").setLevel(level.upper())


class _Lines(logging.Formatter):
    """Times in UTC (RFC 3339), levels in small letters."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03}Z"

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        return super().format(record)
