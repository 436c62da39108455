"""What a search looks for: the same for either finder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sidecar.hands.fileinterface import Selection


@dataclass(frozen=True, slots=True)
class Query:
    """Lines that match `pattern`, in the files of a selection."""

    pattern: str
    fixed: bool
    ignore_case: bool
    limit: int  # lines that are wanted
    exclude: tuple[str, ...]  # bytes that are no UTF-8 as lone surrogates (PEP 383)
    ignore: Literal["none", "git"]
    globs: tuple[str, ...]

    @property
    def selection(self) -> Selection:
        return Selection(exclude=self.exclude, ignore=self.ignore, globs=self.globs)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def query_from(options: Mapping[str, Any]) -> Query:
    """Of what core asks for, or of what `as_json` said."""
    return Query(
        pattern=options["pattern"],
        fixed=options["fixed"],
        ignore_case=options["ignore_case"],
        limit=options["limit"],
        exclude=tuple(map(_text, options["exclude"])),
        ignore=options["ignore"],
        globs=tuple(map(_text, options["globs"])),
    )


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
