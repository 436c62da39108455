"""A tree that is watched: which directories have a watch, and which names were seen in them.

inotify(7) tells what happens in a directory it was given, and nothing of what lies below. So:

- A directory is watched first and then read. What is made before the watch is read, what is made
  after it is told, and what is both is known by then. So nothing made in a directory that has just
  appeared is missed, and nothing is told twice.
- The names are remembered. So a directory that is moved away is told with all that was in it, and
  a file that is renamed over another was modified, not added.
- What the kernel tells has happened some time ago, and the disk may be further on. That does no
  harm: of every name there is a last event, and what is done for that one is right.

Directories are opened from the watched folder down, name by name, links never followed. What a
selection leaves out is neither watched nor remembered, nor are parts of uploads.

Memory is about 0.3 KiB for a directory and 0.1 for another name. Of these `watchednames.NAMES` are
kept: past that a file may be told as added that was there before. The kernel takes 1 KiB for each
directory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager

from sidecar.hands.fileinterface import FileType, type_of
from sidecar.hands.local.walk.choosing import Choice
from sidecar.hands.local.walk.descent import ENTER, Descent, Lost, identity
from sidecar.hands.local.walk.ignoring import Rules
from sidecar.hands.local.walk.walking import LONGEST
from sidecar.hands.local.watch import inotify
from sidecar.hands.local.watch.changes import Changes
from sidecar.hands.local.watch.inotify import Event, Inotify
from sidecar.hands.local.watch.watchednames import Names, Node
from sidecar.hands.names import SELF, is_part

MASK = (
    (inotify.CREATE | inotify.DELETE | inotify.MOVED_FROM | inotify.MOVED_TO)
    | (inotify.MODIFY | inotify.CLOSE_WRITE | inotify.ATTRIB)  # CLOSE_WRITE: after mmap(2)
    | (inotify.DELETE_SELF | inotify.MOVE_SELF)
)
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}  # an event will tell, or did
_CLOSED = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


class WatchedTree:
    """All below one folder, which is open as `top`; `top` is closed by its owner."""

    def __init__(
        self,
        kernel: Inotify,
        top: int,
        choice: Choice,
        above: Rules | None,
        changes: Changes,
        *,
        recursive: bool,
        check: Callable[[], object],
    ) -> None:
        """`above`: the rules that hold above `top`. Nothing is seen before the first `refresh`."""
        self._kernel = kernel
        self._top = top
        self._changes = changes
        self._recursive = recursive
        self._check = check
        self._choice = choice
        self._above = above
        self._names = Names(kernel, choice, changes)
        self._nodes = self._names.nodes
        self.root = Node(b"", None, kernel.watch(top, MASK), above)
        self._nodes[self.root.wd] = self.root

    @property
    def directories(self) -> int:
        return len(self._nodes)

    def close(self, *, keep: Container[int]) -> None:
        """End the watches, but for those in `keep`, which somebody else needs."""
        for wd in self._nodes:
            if wd not in keep:
                self._kernel.unwatch(wd)
        self._nodes.clear()

    def refresh(self, node: Node | None = None, *, quiet: bool = False) -> None:
        """Read a directory and all below, with the rules that hold there now; without `node`, the
        whole tree. With `quiet`, what is found is remembered and not told."""
        node = node or self.root
        self._names.is_quiet = quiet
        try:
            with self._open(node) as directory:
                descriptor = os.open(SELF, ENTER, dir_fd=directory)
            above = self._above if node.parent is None else node.parent.rules
            node.rules = self._choice.rules_in(descriptor, node.path(b""), above)
            self._read_all(node, descriptor)
        except OSError as error:
            if node.parent is None:
                raise
            self._stand(error, node.parent, node.name)
        finally:
            self._names.is_quiet = False

    def receive(self, event: Event) -> None:
        """What the kernel says of a directory of this tree; of any other it is ignored."""
        node = self._nodes.get(event.wd)
        if node is None or is_part(event.name):
            return
        if not event.name:
            if event.mask & inotify.IGNORED and node.parent is not None:
                self._lose(node)
            return
        is_directory = bool(event.mask & inotify.ISDIR)
        if event.mask & (inotify.DELETE | inotify.MOVED_FROM):
            self._vanished(node, event.name, is_directory=is_directory)
        elif is_directory:
            self._appeared(node, event)
        elif event.mask & (inotify.CREATE | inotify.MOVED_TO):
            self._came(node, event.name, moved=bool(event.mask & inotify.MOVED_TO))
        else:
            self._touched(node, event.name)

    def __contains__(self, wd: object) -> bool:
        """Whether a watch descriptor is that of a directory of the tree."""
        return wd in self._nodes

    def __getitem__(self, wd: int) -> Node:
        return self._nodes[wd]

    def look(self, path: bytes) -> FileType:
        """What kind of entry it is, as it is now; remembered."""
        *names, name = path.split(b"/")
        node = self.root
        for step in names:
            found = node.entries.get(step)
            if not isinstance(found, Node):
                return FileType.UNKNOWN
            node = found
        try:
            with self._open(node) as directory:
                type = type_of(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
        except OSError:
            return FileType.UNKNOWN
        if isinstance(node.entries.get(name), FileType):
            node.entries[name] = type
        return type

    # Names come and go ---------------------------------------------------------------------

    def _vanished(self, node: Node, name: bytes, *, is_directory: bool) -> None:
        if name in node.entries:
            self._names.drop(node, name)
        elif self._names.is_full and not self._names.hides(node, name, is_directory=is_directory):
            type = FileType.DIRECTORY if is_directory else FileType.UNKNOWN
            self._changes.removed(node.path(name), type)

    def _came(self, node: Node, name: bytes, *, moved: bool) -> None:
        """An entry that is no directory."""
        known = node.entries.get(name)
        if isinstance(known, Node) or known is FileType.DIRECTORY:
            self._names.drop(node, name)
        elif known is not None:
            if moved:  # over the one that was there
                node.entries[name] = FileType.UNKNOWN
                self._changes.modified(node.path(name), FileType.UNKNOWN)
            return  # or it was found when the directory was read
        self._add(node, name, FileType.UNKNOWN)

    def _touched(self, node: Node, name: bytes) -> None:
        known = node.entries.get(name)
        if isinstance(known, Node):
            return  # it is a directory by now
        if known is None:
            # A file without a name (O_TMPFILE) is told under one that it does not have.
            if self._names.hides(node, name, is_directory=False) or not self._exists(node, name):
                return
            self._names.remember(node, name, FileType.UNKNOWN)
        self._changes.modified(node.path(name), known or FileType.UNKNOWN)

    def _appeared(self, node: Node, event: Event) -> None:
        """A directory came, or something about it is another."""
        name, known = event.name, node.entries.get(event.name)
        if event.mask & inotify.ATTRIB and known is not None:
            self._changes.modified(node.path(name), FileType.DIRECTORY)
            if isinstance(known, Node):
                return
        if isinstance(known, FileType) and known is not FileType.DIRECTORY:
            self._names.drop(node, name)
        if not self._recursive:
            self._add(node, name, FileType.DIRECTORY)
        elif not self._names.hides(node, name, is_directory=True):
            self._enter_and_read(node, name)

    def _enter_and_read(self, node: Node, name: bytes) -> None:
        known = node.entries.get(name)
        try:
            with self._open(node) as directory:
                opened = self._enter(node, name, directory)
        except OSError as error:
            self._stand(error, node, name)
            return
        if opened is None:
            return
        child = node.entries[name]
        if child is known:  # it was found when the directory was read
            os.close(opened)
            return
        assert isinstance(child, Node)
        self._read_all(child, opened)

    def _lose(self, node: Node) -> None:
        """The kernel ended the watch: the directory was removed, or its file system unmounted."""
        parent = node.parent
        assert parent is not None
        self._names.drop(parent, node.name)
        self._appeared(parent, Event(parent.wd, inotify.CREATE | inotify.ISDIR, node.name))

    def _add(self, node: Node, name: bytes, type: FileType) -> None:
        is_directory = type is FileType.DIRECTORY
        if name not in node.entries and not self._names.hides(
            node, name, is_directory=is_directory
        ):
            self._names.note(node, name, type)

    # Reading -------------------------------------------------------------------------------

    def _read_all(self, node: Node, descriptor: int) -> None:
        """Make what is remembered what is there, from `node` down. Closes `descriptor`."""
        descent = Descent(descriptor)
        try:
            levels = [(node, self._compare(node, descent.here))]
            while levels:
                here, names = levels[-1]
                if not names:
                    levels.pop()
                    _go_up(descent, levels)
                    continue
                name = names.pop()
                opened = self._enter(here, name, descent.here)
                if opened is not None:
                    descent.down(name, opened)
                    below = here.entries[name]
                    assert isinstance(below, Node)
                    levels.append((below, self._compare(below, opened)))
        finally:
            descent.close()

    def _compare(self, node: Node, directory: int) -> list[bytes]:
        """Read one directory and tell what is other than remembered; its subdirectories, which
        are still to be entered."""
        prefix = node.path(b"")
        there: dict[bytes, FileType] = {}
        with os.scandir(directory) as entries:
            for entry in entries:
                self._check()
                name, type = os.fsencode(entry.name), _type_of(entry)
                is_directory = type is FileType.DIRECTORY
                if not is_part(name) and not self._choice.leaves_out(
                    prefix + name, name, node.rules, is_directory=is_directory
                ):
                    there[name] = type
        for name in [name for name in node.entries if name not in there]:
            self._names.drop(node, name)
        subdirectories = []
        for name, type in there.items():
            known = node.entries.get(name)
            was_directory = isinstance(known, Node) or known is FileType.DIRECTORY
            if known is not None and was_directory != (type is FileType.DIRECTORY):
                self._names.drop(node, name)
            if type is FileType.DIRECTORY and self._recursive:
                subdirectories.append(name)
            else:
                self._names.note(node, name, type)
        return subdirectories[::-1]

    def _enter(self, node: Node, name: bytes, directory: int) -> int | None:
        """Watch the subdirectory `name`; a descriptor of it, to be read. None if it cannot be
        entered, and where it is watched already, under another name."""
        path = node.path(name)
        try:
            if len(path) > LONGEST:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            opened = os.open(name, ENTER, dir_fd=directory)
        except OSError as error:
            self._stand(error, node, name)
            return None
        try:
            is_ours = self._place(node, name, opened)
        except BaseException:
            os.close(opened)
            raise
        if not is_ours:
            os.close(opened)
            return None
        return opened

    def _place(self, node: Node, name: bytes, opened: int) -> bool:
        """Make it a node, if it is none; False if its inode has a node elsewhere."""
        wd, path = self._kernel.watch(opened, MASK), node.path(name)
        known, other = node.entries.get(name), self._nodes.get(wd)
        if other is not None and other is known:
            other.rules = self._choice.rules_in(opened, path + b"/", node.rules)
            return True
        if isinstance(known, Node):  # another directory has its name now
            self._names.drop(node, name)
            other = self._nodes.get(wd)
        if other is not None and (node.is_below(other) or self._is_there(other, opened)):
            self._names.note(node, name, FileType.DIRECTORY)  # by a bind mount
            return False
        if other is not None and other.parent is not None:  # the event is still to come
            self._names.drop(other.parent, other.name)
        wd = self._kernel.watch(opened, MASK)  # once more: what was dropped may have had it
        rules = self._choice.rules_in(opened, path + b"/", node.rules)
        self._names.enter(Node(name, node, wd, rules))
        return True

    def _is_there(self, node: Node, opened: int) -> bool:
        """Whether `opened` is what lies at the place of `node`, too."""
        try:
            with self._open(node) as directory:
                return identity(os.fstat(directory)) == identity(os.fstat(opened))
        except OSError:
            return False

    def _exists(self, node: Node, name: bytes) -> bool:
        try:
            with self._open(node) as directory:
                os.stat(name, dir_fd=directory, follow_symlinks=False)
                return True
        except OSError:
            return False

    def _stand(self, error: OSError, node: Node, name: bytes) -> None:
        """The directory `name` cannot be entered. What is gone another event tells."""
        if error.errno in _GONE:
            return
        if error.errno not in _CLOSED:
            raise error
        if isinstance(node.entries.get(name), Node):
            return  # its watch goes on: the kernel asks when one is set
        if name not in node.entries:
            self._changes.cannot_watch(node.path(name))
        self._names.note(node, name, FileType.DIRECTORY)

    @contextmanager
    def _open(self, node: Node) -> Iterator[int]:
        """Where `node` lies, by name. The disk may be further on than we are: then it is another
        directory, or an error."""
        here = os.dup(self._top)
        try:
            for name in node.names:
                below = os.open(name, _STEP, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)


def _go_up(descent: Descent, levels: list[tuple[Node, list[bytes]]]) -> None:
    """Above the last level. One that was moved meanwhile is left: an event will tell of it."""
    while levels:
        try:
            descent.up()
            return
        except Lost:
            levels.pop()


def _type_of(entry: os.DirEntry[str]) -> FileType:
    """By what the directory says; it is asked for where that says nothing."""
    try:
        if entry.is_symlink():
            return FileType.SYMLINK
        if entry.is_dir(follow_symlinks=False):
            return FileType.DIRECTORY
        if entry.is_file(follow_symlinks=False):
            return FileType.FILE
        return type_of(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return FileType.UNKNOWN
