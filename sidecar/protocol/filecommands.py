"""The arguments of `files.*`; what they answer stands at the head of `commands`.

A path is relative to the workspace, or absolute below it or below another root. Where many paths
are taken, each has an answer of its own, and an error of one disturbs no other.

A path has at most 4,095 bytes below its root, and a name 255: the kernel takes no more. Trees may
be deeper, and go as a whole: what lies beyond is removed whatever its depth; walks (lists, globs,
searches, archives, copies) go down to paths of 8 KiB and tell where they stopped.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sidecar.protocol.arguments import Arguments, Digest, Path, Size
from sidecar.protocol.limits import ANSWER_BYTES

Mode = Annotated[int, Field(ge=0, le=0o7777)]
UploadId = Annotated[bytes, Field(min_length=16, max_length=16)]
Paths = Annotated[list[Path], Field(min_length=1, max_length=1000)]
Pattern = Annotated[str | bytes, Field(min_length=1, max_length=4096)]
Patterns = Annotated[list[Pattern], Field(max_length=256)]
Content = Annotated[bytes, Field(max_length=ANSWER_BYTES)]
Etag = Annotated[str, Field(min_length=1, max_length=128)]


class Selection(Arguments):
    """Which entries of a tree: all that `exclude` (patterns as in .gitignore) does not name and,
    with `ignore` at `git`, that no .gitignore of the tree does. Parts of uploads are never seen."""

    exclude: Patterns = Field(default_factory=list)
    ignore: Literal["none", "git"] = "none"


class FilesRead(Arguments):
    """Bytes of a regular file, by stream 3; up to 64 KiB stand in the result with `inline`.

    With `paths`, of many: the result has a row for each, and the stream the bytes of all, one
    after the other. `etag`: the file must still be the one that had it. A file that changes while
    it is read ends the stream with `source_changed`, unless `allow_change`: then each byte is the
    one that was there when it was read, and a file that grows is read as far as it was at first.
    """

    path: Path | None = None
    paths: Paths | None = None
    offset: Size = 0
    length: Size | None = None
    inline: bool = True
    etag: Etag | None = None
    allow_change: bool = False

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        if (self.path is None) == (self.paths is None):
            raise ValueError("exactly one of path and paths is expected")
        if self.paths is not None and (self.offset or self.length is not None or self.etag):
            raise ValueError("offset, length and etag go with path, not with paths")
        return self


class FilesWrite(Arguments):
    """Replace a file atomically. The bytes are `content`, or come as stream 3.

    `sha256` is compared with what arrived before anything is renamed. `if_match`: the file must
    have this SHA-256 now ("*": it must exist); `if_none_match`: it must not ("*": nothing may be
    there). A stream that brings no byte for ten minutes ends the call with `timeout`. Directories
    that `parents` made stay, also if the write fails.

    With `upload` the bytes go to a part file beside the target that bears this id, and stay
    there when the call does not come to its end: `files.upload` tells how many there are, and
    another `files.write` with the same id and that `offset` goes on. What the stream brings is
    then the file from `offset` on, `size` and `sha256` are of the whole file, and the whole part
    is read again before it becomes the file. One call at a time writes an upload: a newer one ends
    an older with `conflict`; one that a restart of the sidecar cut off ends with `interrupted`.
    A part that nobody went on with for 24 h is removed.
    """

    path: Path
    content: Content | None = None
    upload: UploadId | None = None
    offset: Size = 0
    sha256: Digest | None = None
    size: Size | None = None
    if_match: Digest | Literal["*"] | None = None
    if_none_match: Digest | Literal["*"] | None = None
    mode: Mode | None = None
    mtime_ns: Size | None = None
    parents: bool = False

    @model_validator(mode="after")
    def _offset_of_an_upload(self) -> Self:
        if self.upload is None and self.offset:
            raise ValueError("an offset goes with an upload id")
        if self.upload is not None and self.content is not None:
            raise ValueError("an upload comes as a stream, not as content")
        return self


class FilesUpload(Arguments):
    """How much of an upload lies in its part; with `discard` that is removed, and a call that
    writes it ends; the answer is what there was."""

    path: Path
    upload: UploadId
    discard: bool = False


class FilesAppend(Arguments):
    """Add bytes at the end of a file, which is made if `create`: `content`, or stream 3. Not
    atomic: who reads meanwhile may see a part; but the calls of this sidecar to one file take
    turns. `size`: the file must have as many bytes before. One that is replaced or removed
    meanwhile is `source_changed`: what was added went with it."""

    path: Path
    content: Content | None = None
    create: bool = True
    parents: bool = False
    mode: Mode | None = None
    size: Size | None = None


class Replacement(Arguments):
    """`old` must stand there exactly once, or `count` times; each becomes `new`. 0: any number of
    times, but once at least."""

    old: Annotated[str | bytes, Field(min_length=1, max_length=ANSWER_BYTES)]
    new: Annotated[str | bytes, Field(max_length=ANSWER_BYTES)]
    count: Annotated[int, Field(ge=0, lt=1 << 31)] = 1


class FilesEdit(Arguments):
    """Exact replacements, each in what the one before it left; all of them or none."""

    path: Path
    edits: Annotated[list[Replacement], Field(min_length=1, max_length=256)]
    if_match: Digest | None = None


class FilesStat(Arguments):
    """One path, or with `paths` many; of a link itself unless `follow`. With `hash` the SHA-256 of
    regular files, which reads all of them."""

    path: Path | None = None
    paths: Paths | None = None
    follow: bool = False
    hash: bool = False

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        if (self.path is None) == (self.paths is None):
            raise ValueError("exactly one of path and paths is expected")
        return self


class FilesList(Selection):
    """One page of a directory, sorted by name; `after` is the last name of the page before.

    With `recursive` of the whole tree: names are paths below `path`, a directory stands before
    what is in it, and the order is that of the names at each level. Links are not followed, mount
    points are crossed. `depth`: how many levels of directories, 1 being `path` itself. A directory
    that cannot be entered is told with an error. A page may be shorter than `limit`, or empty,
    and have a `next`: it ends after 2 s. `after` need not be there any more.
    """

    path: Path = ""
    after: Path | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    recursive: bool = False
    depth: Annotated[int, Field(ge=1, le=4096)] | None = None


class FilesGlob(Selection):
    """Paths below `path` that match one of `patterns`: `*` and `?` within a name, `**` for any
    number of directories, `[...]`; a leading dot is like any character. Paged as `files.list`."""

    patterns: Annotated[list[Pattern], Field(min_length=1, max_length=64)]
    path: Path = ""
    after: Path | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    ignore: Literal["none", "git"] = "git"


class FilesSearch(Selection):
    """Lines that match a regular expression, in the files below `path`, sorted by path and line.

    Binary files (with a NUL) are passed over, links not followed; `path` may be a file, too.
    `fixed`: the pattern is plain text. `glob`: only files whose path matches one of these, or
    whose name, if there is no slash in it. At most `limit` lines that match, of which the first
    `line_bytes` are shown. `before` and `after`: lines around each, as far as they lie within
    64 KiB of it; their column is 0.
    """

    pattern: Annotated[str, Field(min_length=1, max_length=16 * 1024)]
    path: Path = ""
    fixed: bool = False
    ignore_case: bool = False
    glob: Patterns = Field(default_factory=list)
    ignore: Literal["none", "git"] = "git"
    before: Annotated[int, Field(ge=0, le=100)] = 0
    after: Annotated[int, Field(ge=0, le=100)] = 0
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    line_bytes: Annotated[int, Field(ge=16, le=16 * 1024)] = 512


class FilesWatch(Selection):
    """What changes below the directory `path`, as stream 16 until the call is cancelled.

    The stream is a CBOR sequence of batches: {"changes": [[kind, path, type], ...]}, kind being
    added, modified or removed, as seen by who lists the tree with the same selection; and
    {"lost": why, "paths"?} where changes may have been missed, below `paths` or anywhere, after
    which only a look at the tree tells what there is. Why: `overflow`, `slow reader`, `gone` (the
    directory, which may come again), `replaced` (there is another one), `unreadable` (a directory
    in it). The first batch is empty: from then on nothing is missed. `gather`: how long changes
    are collected; of each path a batch has one at most.
    """

    path: Path = ""
    recursive: bool = True
    gather: Annotated[float, Field(ge=0, le=60)] = 0.05


class FilesArchive(Selection):
    """The tree below `path` as a tar stream (stream 3; POSIX pax format), with links, modes, times
    and the numbers of owners. Holes become zeros.

    With `paths` only these, relative to `path`, with all that is below them: `exclude` is then
    relative to each, and does not name them. `skipped` has up to 1000 entries that were left out
    (FIFOs, sockets, devices, what cannot be read), and files that became shorter: the rest of
    those is zeros. One that grows is cut at its first size.
    """

    path: Path = ""
    paths: Paths | None = None
    compress: Literal["none", "gzip"] = "none"


class FilesExtract(Arguments):
    """A tar stream (stream 3), gzip or not, into the directory `path`, which is made if missing.

    Each file is whole or absent. Members that would leave `path`, devices and FIFOs are refused
    one by one; `refused` has up to 1000 of them. `links`: `inside` refuses symbolic links that lead
    out of the root, `all` keeps them as they are. No link is followed, also none that was there
    before. `existing`: whether a file that is there is replaced, kept, or an error. `strip`: so
    many names are taken from the beginning of each path. Modes and times are kept, owners and
    set-user-id are not.

    An archive that is broken or cut off is `invalid`, with the `offset`; what came before stays,
    and `entries`, `bytes` and `refused_count` in the details of any error say how much that is.
    """

    path: Path = ""
    strip: Annotated[int, Field(ge=0, le=100)] = 0
    links: Literal["inside", "all"] = "inside"
    existing: Literal["replace", "keep", "refuse"] = "replace"


class FilesCopy(Arguments):
    """A file, a link itself, or with `recursive` a directory, to a new name, which is replaced
    itself if it is a link. Each file is whole or absent; holes, modes (but for set-user-id and
    set-group-id) and times are kept. With `replace` a tree may go into a directory that is there,
    and what that has under other names stays. What cannot be read, changes meanwhile or is no
    file, directory or link is left out: `skipped` has up to 1000 of those, with their paths below
    `source`.
    """

    source: Path
    target: Path
    recursive: bool = False
    replace: bool = True


class FilesMkdir(Arguments):
    path: Path
    parents: bool = False
    exist_ok: bool = False
    mode: Mode = 0o777


class FilesMove(Arguments):
    """Rename, atomically. With `replace` false an existing target is an error."""

    source: Path
    target: Path
    replace: bool = True


class FilesLink(Arguments):
    """A link at `path`: symbolic, with `target` as its text, or with `hard` a second name of the
    file `target`. A symbolic one that would lead out of its root is `outside`, unless `any`."""

    path: Path
    target: Path
    hard: bool = False
    any: bool = False


class FilesChmod(Arguments):
    path: Path
    mode: Mode


class FilesRemove(Arguments):
    """A file, a link (never its target), or a directory; a full one only when `recursive`."""

    path: Path
    recursive: bool = False
