"""Whether a walk would have given a file that somebody else found."""

from __future__ import annotations

import os

from sidecar.errors import CallError
from sidecar.hands.fileinterface import Selection
from sidecar.hands.local.beneath import Beneath, through_proc
from sidecar.hands.local.walk.choosing import Choice
from sidecar.hands.local.walk.ignoring import Rules
from sidecar.hands.names import SELF, is_part

KEPT = 10_000  # directories whose rules are remembered
_LOOK = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _LeftOut(Exception):
    """A walk does not come to this directory."""


class Judge:
    """Asks for each file what a walk asks for each entry on the way to it (`choosing`)."""

    def __init__(self, selection: Selection, root: Beneath, start: int, beneath: Beneath) -> None:
        """`start` is the directory where the walk would begin, and `beneath` the same."""
        self._choice = Choice(selection)
        self._beneath = beneath
        self._rules: dict[bytes, Rules | None] = {}
        top = os.open(SELF, _LOOK, dir_fd=start)
        try:
            above = self._choice.rules_above(root, top)
            self._at_start = self._choice.rules_in(top, b"", above)
        finally:
            os.close(top)

    def wants(self, path: bytes) -> bool:
        directory, _, name = path.rpartition(b"/")
        try:
            rules = self._rules_of(directory)
        except (_LeftOut, CallError, OSError):
            return False
        if is_part(name) or self._choice.leaves_out(path, name, rules, is_directory=False):
            return False
        return self._choice.names(path, is_directory=False)

    def _rules_of(self, directory: bytes) -> Rules | None:
        if not directory:
            return self._at_start
        if directory in self._rules:
            return self._rules[directory]
        above, _, name = directory.rpartition(b"/")
        rules = self._rules_of(above)
        if self._choice.leaves_out(directory, name, rules, is_directory=True):
            raise _LeftOut
        with self._beneath.resolved(directory, follow=False) as found:
            opened = os.open(through_proc(found), _LOOK & ~os.O_NOFOLLOW)
            try:
                rules = self._choice.rules_in(opened, directory + b"/", rules)
            finally:
                os.close(opened)
        if len(self._rules) >= KEPT:
            self._rules.clear()
        self._rules[directory] = rules
        return rules
