"""What the arguments of all commands are made of.

Strict types and no unknown names: a misspelt `timeout` that is silently ignored is worse than an
error. Durations are seconds, sizes bytes, times nanoseconds since the epoch. A path is text, or
bytes where the name is not UTF-8.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Path = Annotated[str | bytes, Field(max_length=8192)]
Text = Annotated[str, Field(max_length=1024 * 1024)]
Word = Annotated[str | bytes, Field(max_length=1024 * 1024)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]
Size = Annotated[int, Field(ge=0, lt=1 << 63)]
Digest = Annotated[bytes, Field(min_length=32, max_length=32)]


class Arguments(BaseModel):
    """Base of all arguments: strict types, no unknown names."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
