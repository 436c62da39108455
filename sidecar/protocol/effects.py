"""What a command may change. Scope and policy are decided by it."""

from __future__ import annotations

from enum import StrEnum


class Effect(StrEnum):
    READ = "read"  # changes nothing
    WRITE = "write"  # changes files in the workspace
    EXEC = "exec"  # runs programs, which may change whatever their user may
    ADMIN = "admin"  # changes the sidecar itself
