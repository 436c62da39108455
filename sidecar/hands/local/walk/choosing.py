"""Which entries a walk gives, and which directories it enters."""

from __future__ import annotations

from sidecar.hands.fileinterface import Selection
from sidecar.hands.globs import Globs
from sidecar.hands.local.beneath import Beneath
from sidecar.hands.local.walk.ignorefiles import GIT, rules_above, rules_in
from sidecar.hands.local.walk.ignoring import Rules, from_arguments


class Choice:
    """A selection at work."""

    def __init__(self, selection: Selection) -> None:
        self._exclude = from_arguments(selection.exclude) if selection.exclude else None
        self._globs = Globs(selection.globs) if selection.globs else None
        self._is_git = selection.ignore == "git"
        self._depth = selection.depth

    def may_matter(self, path: bytes) -> bool:
        """Whether `path` has to be looked at, whatever it is."""
        globs = self._globs
        return globs is None or globs.may_name(path) or globs.leads(path)

    def leaves_out(
        self, path: bytes, name: bytes, rules: Rules | None, *, is_directory: bool
    ) -> bool:
        if self._is_git and name == GIT:
            return True
        if self._exclude is not None:
            said = self._exclude.judge(
                path.decode("latin-1"), name.decode("latin-1"), is_directory=is_directory
            )
            if said is not None:
                return said
        return rules is not None and rules.leave_out(path, name, is_directory=is_directory)

    def names(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether what is not left out is given."""
        return self._globs is None or self._globs.names(path, is_directory=is_directory)

    def enters(self, path: bytes, depth: int) -> bool:
        """Whether the directory `path`, so many levels below the start, is entered."""
        if self._depth is not None and depth >= self._depth:
            return False
        return self._globs is None or self._globs.leads(path)

    def rules_in(self, directory: int, prefix: bytes, above: Rules | None) -> Rules | None:
        """The rules in a directory, whose entries have paths that begin with `prefix`."""
        return rules_in(directory, len(prefix), above) if self._is_git else None

    def rules_above(self, beneath: Beneath, start: int) -> Rules | None:
        """The rules that the directories between the root and the start give it."""
        return rules_above(beneath, start) if self._is_git else None
