"""What `files.*` should do, in plain Python: a tree of nodes, and commands that change it.

A command that may not be done raises `Refused` with the code that it should be answered. Paths
are resolved as path_resolution(7) says, except that whatever leads out of the root is `outside`.
Part files are entries like others here, so that directories which hold one are not empty.
"""

from __future__ import annotations

from treenodes import (
    Fifo,
    File,
    Folder,
    Link,
    Node,
    Place,
    Refused,
    Rows,
    below,
    but_missing,
    digest,
    folder_of,
    names_of,
    rows_of,
)

from sidecar.client import Code
from sidecar.hands.names import is_part, part_name

MAX_LINKS = 40


class Tree:
    """The workspace. `umask` is what new entries are made with."""

    def __init__(self, umask: int) -> None:
        self.root = Folder()
        self.umask = umask

    # paths ------------------------------------------------------------------------------------

    def way(self, path: bytes, *, follow: bool = True) -> list[Node]:
        """The nodes from the root to what `path` names."""
        way: list[Node] = [self.root]
        todo, links = names_of(path), 0
        while todo:
            name = todo.pop(0)
            folder = folder_of(way[-1])
            if name == b".":
                continue
            if name == b"..":
                if len(way) == 1:
                    raise Refused(Code.OUTSIDE)
                way.pop()
                continue
            found = folder.entries.get(name)
            if found is None:
                raise Refused(Code.NOT_FOUND)
            if isinstance(found, Link) and (follow or todo):
                links += 1
                if links > MAX_LINKS:
                    raise Refused(Code.INVALID)
                if found.text.startswith(b"/"):
                    raise Refused(Code.OUTSIDE)
                todo = names_of(found.text) + todo
            else:
                way.append(found)
        return way

    def node(self, path: bytes, *, follow: bool = True) -> Node:
        return self.way(path, follow=follow)[-1]

    def place(self, path: bytes) -> Place:
        names = names_of(path)
        has_slash = len(names) > 1 and names[-1] == b"."
        if has_slash:
            names.pop()
        if not names or names[-1] in (b".", b".."):
            raise Refused(Code.INVALID)
        return Place(self.node(b"/".join(names[:-1])), names[-1], has_slash)

    def target(self, path: bytes) -> Place:
        """Where a file is written: the place that a link leads to, if it is one."""
        for _ in range(MAX_LINKS + 1):
            place = self.place(path)
            found = place.find()
            if not isinstance(found, Link):
                if place.has_slash or isinstance(found, Folder):
                    raise Refused(Code.IS_DIRECTORY)
                if isinstance(found, Fifo):
                    raise Refused(Code.UNSUPPORTED)
                return place
            if found.text.startswith(b"/"):
                raise Refused(Code.OUTSIDE)
            names = [name for name in names_of(path) if name != b"."]
            path = b"/".join([*names[:-1], found.text])
        raise Refused(Code.INVALID)

    def file(self, path: bytes) -> File:
        """One that can be read."""
        node = self.node(path)
        if isinstance(node, Folder):
            raise Refused(Code.IS_DIRECTORY)
        if not isinstance(node, File):
            raise Refused(Code.UNSUPPORTED)
        return node

    def make_parents(self, path: bytes) -> None:
        names = [name for name in names_of(path) if name != b"."][:-1]
        missing: list[bytes] = []
        while True:
            try:
                here = self.node(b"/".join(names))
                break
            except Refused as refused:
                is_up = b".." in (*missing, *names[-1:])
                if refused.code is not Code.NOT_FOUND or not names or is_up:
                    raise
                missing.insert(0, names.pop())
        for name in missing:
            here = folder_of(here).entries.setdefault(name, Folder(0o777 & ~self.umask))
            folder_of(here)

    # contents ---------------------------------------------------------------------------------

    def write(
        self,
        path: bytes,
        content: bytes,
        *,
        mode: int | None = None,
        parents: bool = False,
        if_match: bytes | str | None = None,
        if_none_match: bytes | str | None = None,
        sha256: bytes | None = None,
    ) -> None:
        self.check(path, if_match, if_none_match)
        if parents:
            self.make_parents(path)
        place = self.target(path)
        if sha256 is not None and sha256 != digest(content):
            raise Refused(Code.DIGEST_MISMATCH)
        self.replace(place, content, mode)

    def replace(self, place: Place, content: bytes, mode: int | None) -> None:
        old = place.find()
        if mode is None:
            mode = old.mode & 0o777 if isinstance(old, File) else 0o666 & ~self.umask
        place.put(File(content, mode))

    def check(
        self, path: bytes, if_match: bytes | str | None, if_none_match: bytes | str | None
    ) -> None:
        """The conditions of a write."""
        needs_digest = isinstance(if_match, bytes) or isinstance(if_none_match, bytes)
        if if_match is None and if_none_match is None:
            return
        found: Node | None = None
        with but_missing():
            found = self.file(path) if needs_digest else self.node(path)
        sha256 = digest(found.content) if needs_digest and isinstance(found, File) else None
        if (
            (if_match == "*" and found is None)
            or (isinstance(if_match, bytes) and if_match != sha256)
            or (if_none_match == "*" and found is not None)
            or (if_none_match is not None and if_none_match == sha256)
        ):
            raise Refused(Code.PRECONDITION_FAILED)

    def upload(
        self, path: bytes, id: bytes, offset: int, more: bytes, *, missing: int, parents: bool
    ) -> None:
        """`missing`: so many bytes more were announced than come, so that the part stays."""
        if parents:
            self.make_parents(path)
        place = self.target(path)
        folder, name = place.folder, part_name(place.name, id)
        part = folder.entries.setdefault(name, File(b"", 0o600))
        assert isinstance(part, File)
        try:
            if offset > len(part.content):
                raise Refused(Code.PRECONDITION_FAILED)
            part.content = part.content[:offset] + more
            if missing:
                raise Refused(Code.INVALID)
        except Refused:
            if not part.content:
                del folder.entries[name]
            raise
        del folder.entries[name]
        self.replace(place, part.content, None)

    def part(self, path: bytes, id: bytes) -> int:
        """Bytes of it."""
        found: Node | None = None
        with but_missing():
            place = self.target(path)
            found = place.folder.entries.get(part_name(place.name, id))
        return len(found.content) if isinstance(found, File) else 0

    def discard(self, path: bytes, id: bytes) -> None:
        with but_missing():
            place = self.target(path)
            place.folder.entries.pop(part_name(place.name, id), None)

    def append(
        self, path: bytes, more: bytes, *, create: bool, parents: bool, size: int | None
    ) -> None:
        file = self._end(path, create=create and not size, parents=parents)
        if size is not None and size != len(file.content):
            raise Refused(Code.PRECONDITION_FAILED)
        file.content += more

    def _end(self, path: bytes, *, create: bool, parents: bool) -> File:
        if create and parents:
            self.make_parents(path)
        try:
            return self.file(path)
        except Refused as refused:
            if refused.code is not Code.NOT_FOUND or not create:
                raise
        made = File(b"", 0o666 & ~self.umask)
        self.target(path).put(made)
        return made

    def edit(self, path: bytes, old: bytes, new: bytes, if_match: bytes | None) -> None:
        file = self.file(path)
        if if_match is not None and if_match != digest(file.content):
            raise Refused(Code.PRECONDITION_FAILED)
        if file.content.count(old) != 1:
            raise Refused(Code.PRECONDITION_FAILED)
        self.replace(self.target(path), file.content.replace(old, new), None)

    # names ------------------------------------------------------------------------------------

    def copy(self, source: bytes, target: bytes, *, recursive: bool, replace: bool) -> None:
        place, found = self.place(target), self.node(source, follow=False)
        if isinstance(found, Folder):
            if not recursive:
                raise Refused(Code.IS_DIRECTORY)
            names = [name for name in names_of(target) if name != b"."]
            if found in self.way(b"/".join(names[:-1])):
                raise Refused(Code.INVALID)
            if isinstance(place.folder.entries.get(place.name), Folder) and not replace:
                raise Refused(Code.EXISTS)
            if place.find() is found:
                raise Refused(Code.INVALID)
            self._copy_folder(found, place, replace=replace)
            return
        if place.has_slash:
            raise Refused(Code.NOT_DIRECTORY)
        if place.find() is found:
            raise Refused(Code.INVALID)
        self._copy_entry(found, place, replace=replace)

    def _copy_folder(self, source: Folder, place: Place, *, replace: bool) -> None:
        old = place.find()
        if old is not None and not replace:
            raise Refused(Code.EXISTS)
        into = Folder(0o700 & ~self.umask) if old is None else folder_of(old)
        place.put(into)
        for name, node in sorted(source.entries.items()):
            below = Place(into, name, False)
            if is_part(name):
                continue
            if isinstance(node, Folder):
                self._copy_folder(node, below, replace=replace)
            elif not isinstance(node, Fifo):  # else it is left out and told
                self._copy_entry(node, below, replace=replace)
            elif below.find() is not None:
                self._check_old(below.find(), replace=replace)
        if old is None:
            into.mode = source.mode & 0o1777

    def _copy_entry(self, found: Node, place: Place, *, replace: bool) -> None:
        self._check_old(place.find(), replace=replace)
        if isinstance(found, File):
            place.put(File(found.content, found.mode & 0o777))
        elif isinstance(found, Link):
            place.put(Link(found.text))
        else:
            raise Refused(Code.UNSUPPORTED)

    def _check_old(self, old: Node | None, *, replace: bool) -> None:
        if old is not None and not replace:
            raise Refused(Code.EXISTS)
        if isinstance(old, Folder):
            raise Refused(Code.IS_DIRECTORY)

    def move(self, source: bytes, target: bytes, *, replace: bool) -> None:
        old, new = self.place(source), self.place(target)
        found = old.lstat()
        if new.has_slash:
            folder_of(found)
        there = new.find()
        if there is not None and not replace:
            raise Refused(Code.EXISTS)
        if isinstance(found, Folder) and new.above in below(found):
            raise Refused(Code.INVALID)
        if isinstance(there, Folder) and there is not found:
            if old.above in below(there):
                raise Refused(Code.NOT_EMPTY)
            if not isinstance(found, Folder):
                raise Refused(Code.IS_DIRECTORY)
            if there.entries:
                raise Refused(Code.NOT_EMPTY)
        elif there is not None and there is not found:
            if isinstance(found, Folder):
                raise Refused(Code.NOT_DIRECTORY)
        if there is not found:  # else rename(2) does nothing, also for two names of one file
            new.put(found)
            del old.folder.entries[old.name]

    def mkdir(self, path: bytes, *, parents: bool, exist_ok: bool, mode: int) -> None:
        if exist_ok:
            with but_missing():
                if isinstance(self.node(path), Folder):
                    return
        if parents:
            self.make_parents(path)
        place = self.place(path)
        if place.find() is not None:
            raise Refused(Code.EXISTS)
        place.put(Folder(mode & ~self.umask & 0o1777))

    def symlink(self, path: bytes, text: bytes, *, anywhere: bool) -> None:
        place = self.place(path)
        if place.has_slash:
            raise Refused(Code.NOT_DIRECTORY)
        names = names_of(path)[:-1]
        if not anywhere and self._leads_out(self._real(names), text):
            raise Refused(Code.OUTSIDE)
        if place.find() is not None:
            raise Refused(Code.EXISTS)
        place.put(Link(text))

    def _leads_out(self, above: list[bytes], text: bytes) -> bool:
        if text.startswith(b"/"):
            return True
        try:
            self.node(b"/".join([*above, text]))
        except Refused as refused:
            if refused.code is Code.OUTSIDE:
                return True
        else:
            return False
        depth = len(above)
        for name in text.split(b"/"):
            depth += {b"..": -1, b".": 0, b"": 0}.get(name, 1)
            if depth < 0:
                return True
        return False

    def _real(self, names: list[bytes]) -> list[bytes]:
        """The names that lead there without a link."""
        way = self.way(b"/".join(names))
        found = []
        for above, node in zip(way, way[1:], strict=False):
            [name] = [name for name, one in folder_of(above).entries.items() if one is node][:1]
            found.append(name)
        return found

    def hard_link(self, path: bytes, target: bytes) -> None:
        old, new = self.place(target), self.place(path)
        found = old.lstat()
        if isinstance(found, Folder):
            raise Refused(Code.IS_DIRECTORY)
        if new.has_slash:
            raise Refused(Code.NOT_DIRECTORY)
        if new.find() is not None:
            raise Refused(Code.EXISTS)
        new.put(found)

    def chmod(self, path: bytes, mode: int) -> None:
        found = self.node(path, follow=False)
        if isinstance(found, Link):
            raise Refused(Code.UNSUPPORTED)
        found.mode = mode

    def remove(self, path: bytes, *, recursive: bool) -> None:
        place = self.place(path)
        found = place.lstat()
        if isinstance(found, Folder) and found.entries and not recursive:
            raise Refused(Code.NOT_EMPTY)
        del place.folder.entries[place.name]

    # as a whole -------------------------------------------------------------------------------

    def rows(self) -> Rows:
        """All of it, depth first, by path: type, mode and content, or text of a link."""
        return dict(rows_of(self.root))
