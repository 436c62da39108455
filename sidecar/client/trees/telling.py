"""What a copy of a tree says of itself while it goes on. All of it on the event loop, at once."""

from __future__ import annotations

from sidecar.client.trees.entries import Plan, Problem


class Task:
    """Something that is on its way: one large file, or several small ones."""

    def at(self, done: int) -> None:
        """So many bytes of it have arrived."""

    def end(self) -> None:
        """It has arrived, or failed."""


class Teller:
    """Says nothing: to be overridden by who wants to know."""

    def planned(self, plan: Plan) -> None:
        """Both trees were looked through: this is to be done."""

    def began(self, path: bytes, files: int, size: int) -> Task:
        """The file `path`, or with more than one `files` that one and others, of `size` bytes."""
        return Task()

    def copied(self, path: bytes) -> None:
        """This file, link or directory is there now."""

    def problem(self, problem: Problem) -> None:
        """This one is not."""
