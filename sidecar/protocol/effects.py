"""What a command may change, whether running it twice does harm, and whether it tells content.

Apart from the catalogue, because it is asked where pydantic is not loaded.
"""

from __future__ import annotations

from enum import StrEnum


class Effect(StrEnum):
    READ = "read"  # changes nothing
    WRITE = "write"  # changes files in the workspace
    EXEC = "exec"  # runs programs, which may change whatever their user may
    ADMIN = "admin"  # changes the sidecar itself


# Running one of these twice leaves what running it once leaves. Not so `files.write`: what
# somebody else wrote in between would be gone. Nor `exec.attach`: it may bring input.
REPEATABLE = frozenset(
    {
        "sidecar.info",
        "sidecar.ping",
        "exec.read",
        "exec.wait",
        "exec.list",
        "files.read",
        "files.search",
        "files.list",
        "files.glob",
        "files.stat",
        "files.watch",
        "files.archive",
    }
)


def answers_with_content(command: str, effect: Effect) -> bool:
    """Whether the answer tells what is in the workspace, and counts as leaving it. What a command
    did is told in any case."""
    return effect is Effect.READ and command.startswith("files.")
