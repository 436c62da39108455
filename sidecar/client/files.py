"""Files in the sandbox: whole, by range, or streamed; every transfer is digest-checked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

from anyio.to_thread import run_sync as in_thread

from sidecar.client.appending import Appended, AppendOptions, append
from sidecar.client.archives import (
    Archive,
    ArchiveOptions,
    Extracted,
    ExtractOptions,
    archive,
    extract,
)
from sidecar.client.copies import Copied, copy
from sidecar.client.downloading import Downloaded, Downloading
from sidecar.client.downloads import Download, ReadFile, read_many
from sidecar.client.editing import Edited, Replacement, edit
from sidecar.client.listing import FileEntry, Ignore, scan, stat_many
from sidecar.client.listing import entry as to_entry
from sidecar.client.localfile import open_local
from sidecar.client.localpart import open_directory_of
from sidecar.client.searching import Found, SearchOptions, search
from sidecar.client.trees import (
    EVERYTHING,
    Teller,
    TreeCopied,
    TreeOptions,
    download_tree,
    upload_tree,
)
from sidecar.client.uploading import OnProgress, Uploading, ignore_progress, upload_id
from sidecar.client.watch import Watch
from sidecar.protocol.limits import ANSWER_BYTES
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import BytesSource, Source

if TYPE_CHECKING:
    from sidecar.client.run import Run

Path = str | bytes
Entries = list[FileEntry]
SMALL = ANSWER_BYTES - 4096  # content that rides in the call itself


@dataclass(frozen=True, slots=True)
class Written:
    """What a write left behind: size and digest of the bytes, the new etag and mode."""

    size: int
    sha256: bytes
    etag: str
    mode: int


class Files:
    """The `files.*` commands of a run. All of them raise `CallError`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a range, in memory: for large files see `open`."""
        async with self.open(path, offset=offset, length=length) as download:
            return b"".join([chunk async for chunk in download])

    @asynccontextmanager
    async def open(
        self,
        path: Path,
        *,
        offset: int = 0,
        length: int | None = None,
        etag: str | None = None,
        allow_change: bool = False,
    ) -> AsyncIterator[Download]:
        """Stream a file. The digest is checked before the iteration ends.

        With `etag`, raises `precondition_failed` unless it is the file that had it. A file that
        changes while it is read raises `source_changed`, unless `allow_change`."""
        options: dict[str, Any] = {"length": length, "etag": etag}
        arguments = {k: v for k, v in options.items() if v is not None}
        arguments |= {"path": path, "offset": offset, "allow_change": allow_change}
        async with self._run.open("files.read", arguments) as call:
            yield Download(call, await call.wait())

    async def read_many(
        self, paths: Sequence[Path], *, allow_change: bool = False
    ) -> list[ReadFile]:
        """Many small files, in memory: a thousand in one call. What is wrong with one of them
        stands in its place."""
        files = read_many(self._run, paths, allow_change=allow_change)
        return [file async for file in files]

    async def write(
        self,
        path: Path,
        content: bytes,
        *,
        mode: int | None = None,
        parents: bool = False,
        sha256: bytes | None = None,
        if_match: bytes | Literal["*"] | None = None,
        if_none_match: bytes | Literal["*"] | None = None,
    ) -> Written:
        """Replace a file atomically. With `sha256` nothing is replaced unless it is right.

        `if_match`: the file must have this SHA-256 ("*": any); `if_none_match`: it must not ("*":
        there must be none). Raises `precondition_failed`, with the `sha256` of today."""
        source = None if len(content) <= SMALL else BytesSource(content)
        options = {
            "mode": mode,
            "parents": parents,
            "sha256": sha256,
            "size": len(content),
            "if_match": if_match,
            "if_none_match": if_none_match,
        }
        return await self._write(path, source, content, options)

    async def append(
        self, path: Path, content: bytes, **options: Unpack[AppendOptions]
    ) -> Appended:
        """Add bytes at the end of a file. Not atomic, but calls of one sidecar take turns."""
        return await append(self._run, path, content, **options)

    async def upload(
        self,
        path: Path,
        source: int | str | os.PathLike[str],
        *,
        upload: bytes | Literal["derived"] | None = None,
        mode: int | None = None,
        mtime_ns: int | None = None,
        parents: bool = False,
        on_progress: OnProgress = ignore_progress,
    ) -> Written:
        """Replace a file with a regular one of this machine: a path, or a descriptor, which this
        closes. In constant memory; raises `source_changed` if it is written to meanwhile.

        With an `upload` id of 16 bytes, what has arrived is kept when this ends early, and the
        next upload with that id goes on there; a restart of the sidecar is gone through here.
        `derived`: the id is that of this version of this file, on its way to `path`.
        """
        given = {"mode": mode, "mtime_ns": mtime_ns, "parents": parents}
        options = {key: value for key, value in given.items() if value is not None}
        with await in_thread(open_local, source) as file:
            id = upload_id(path, file) if upload == "derived" else upload
            sending = Uploading(self._run, path, file, id, options, on_progress)
            return Written(**await sending.carry_out())

    async def download(
        self,
        path: Path,
        target: str | os.PathLike[str],
        *,
        on_progress: OnProgress = ignore_progress,
    ) -> Downloaded:
        """Replace the file `target` of this machine, with mode and time of the one at `path`. In
        constant memory. What has come is kept beside it when this ends early, and the next
        download goes on there. Raises also `OSError`, for what is wrong here."""
        directory, name = await in_thread(open_directory_of, os.fsencode(target))
        try:
            return await Downloading(self._run, path, directory, name, on_progress).carry_out()
        finally:
            os.close(directory)

    async def upload_tree(
        self,
        source: str | bytes,
        path: Path,
        options: TreeOptions = EVERYTHING,
        *,
        teller: Teller | None = None,
    ) -> TreeCopied:
        """Make the directory `path` like the directory `source` of this machine. What is there
        already is passed over, and nothing is removed; so after a loss the same call goes on."""
        top = os.fsencode(path)
        return await upload_tree(self._run, os.fsencode(source), top, options, teller or Teller())

    async def download_tree(
        self,
        path: Path,
        target: str | bytes,
        options: TreeOptions = EVERYTHING,
        *,
        teller: Teller | None = None,
    ) -> TreeCopied:
        """Make the directory `target` of this machine like the directory `path`, as above. What
        the sandbox says of names and links is not believed: nothing outside is touched."""
        top = os.fsencode(path)
        return await download_tree(self._run, top, os.fsencode(target), options, teller or Teller())

    async def send(
        self,
        path: Path,
        source: Source,
        *,
        size: int | None = None,
        mode: int | None = None,
        parents: bool = False,
    ) -> Written:
        """Replace a file with the bytes of `source`; a `size` that is known is checked."""
        return await self._write(
            path, source, b"", {"mode": mode, "parents": parents, "size": size}
        )

    async def _write(
        self, path: Path, source: Source | None, content: bytes, options: dict[str, Any]
    ) -> Written:
        arguments = {"path": path, **{k: v for k, v in options.items() if v is not None}}
        if source is None:
            arguments["content"] = content
        async with self._run.open("files.write", arguments) as call:
            if source is not None:
                self._run.send(call, CONTENT, source)
            return Written(**await call.wait())

    async def list(
        self,
        path: Path = "",
        *,
        recursive: bool = False,
        depth: int | None = None,
        exclude: Sequence[Path] = (),
        ignore: Ignore = "none",
    ) -> Entries:
        """What `scan` gives, in one list."""
        found = self.scan(path, recursive=recursive, depth=depth, exclude=exclude, ignore=ignore)
        return [entry async for entry in found]

    async def scan(
        self,
        path: Path = "",
        *,
        recursive: bool = False,
        depth: int | None = None,
        exclude: Sequence[Path] = (),
        ignore: Ignore = "none",
    ) -> AsyncIterator[FileEntry]:
        """The entries of a directory of any size, sorted by name, page by page.

        With `recursive` of the tree below it, `depth` levels of it at most: names are paths then,
        and a directory comes before what is in it. One that cannot be entered bears its `error`.
        `exclude`: patterns as in .gitignore. `ignore`: with `git`, what the .gitignore files of
        the tree leave out, and every `.git`.
        """
        arguments: dict[str, Any] = {"path": path, "exclude": list(exclude), "ignore": ignore}
        if recursive:
            arguments |= {"recursive": True, "depth": depth}
        async for entry in scan(self._run, "files.list", arguments):
            yield entry

    async def glob(
        self,
        *patterns: Path,
        path: Path = "",
        exclude: Sequence[Path] = (),
        ignore: Ignore = "git",
    ) -> Entries:
        """The entries below `path` that one of the patterns names: `*`, `?` and `[...]` within a
        name, `**/` for any number of directories. A leading dot is like any character."""
        arguments = {
            "patterns": list(patterns),
            "path": path,
            "exclude": list(exclude),
            "ignore": ignore,
        }
        return [entry async for entry in scan(self._run, "files.glob", arguments)]

    async def stat(self, path: Path, *, follow: bool = False, hash: bool = False) -> FileEntry:
        """One path; of a link itself unless `follow`. With `hash` the SHA-256 of a file."""
        arguments = {"path": path, "follow": follow, "hash": hash}
        return to_entry(path, await self._run.call("files.stat", arguments))

    async def stat_many(
        self, paths: Sequence[Path], *, follow: bool = False, hash: bool = False
    ) -> Entries:
        """Each of the paths in its place; one that cannot be looked at bears its `error`."""
        found = stat_many(self._run, paths, follow=follow, hash=hash)
        return [entry async for entry in found]

    async def search(
        self, pattern: str, path: Path = "", **options: Unpack[SearchOptions]
    ) -> Found:
        """Lines that match a regular expression, below a directory or of one file. What the
        .gitignore files leave out and binary files are passed over, links are not followed.

        The expression is one of ripgrep's, where that is installed, or else of Python's `re`; what
        only the latter knows is left to it. Raises `invalid` for what is none.
        """
        return await search(self._run, pattern, path, **options)

    async def edit(
        self, path: Path, replacements: Sequence[Replacement], *, if_match: bytes | None = None
    ) -> Edited:
        """Make exact replacements, each in what the one before it left: all of them or none.

        Raises `precondition_failed`, whose `details` say why: `reason` is `not_found` or `count`,
        with the `edit` (from 0) and what may have happened to it; `if_match` if the file has
        another SHA-256; `changed` if somebody wrote it meanwhile.
        """
        return await edit(self._run, path, replacements, if_match)

    def archive(
        self, path: Path = "", **options: Unpack[ArchiveOptions]
    ) -> AbstractAsyncContextManager[Archive]:
        """The tree below `path` as a tar stream, while it is made: chunks to iterate over. With
        `paths` only these; `compress="gzip"` makes less of it."""
        return archive(self._run, path, options)

    async def extract(
        self,
        source: bytes | Source | AsyncIterable[bytes],
        path: Path = "",
        **options: Unpack[ExtractOptions],
    ) -> Extracted:
        """Make what a tar stream, gzip or not, has in it, in the directory `path`, which is made if
        it is missing. Members that would leave it are refused one by one, and told.

        Raises `invalid` for what is no archive, or not all of one, with the `offset`: what came
        before is there, and `details` count it."""
        return await extract(self._run, source, path, options)

    def watch(
        self,
        path: Path = "",
        *,
        recursive: bool = True,
        exclude: Sequence[str | bytes] = (),
        ignore: Literal["none", "git"] = "none",
        gather: float = 0.05,
    ) -> Watch:
        """What changes below a directory, as it happens: see `Watch`. `exclude` are patterns as in
        .gitignore; with `ignore="git"` what the .gitignore files of the tree leave out is, too.
        Changes are gathered for `gather` seconds, at most 60."""
        arguments = {
            "path": path,
            "recursive": recursive,
            "exclude": list(exclude),
            "ignore": ignore,
            "gather": float(gather),
        }
        return Watch(self._run, arguments)

    async def copy(
        self, source: Path, target: Path, *, recursive: bool = False, replace: bool = True
    ) -> Copied:
        """A file, a link itself, or with `recursive` a directory, to a new name, without its bytes
        leaving the sandbox. Each file is whole or absent."""
        return await copy(self._run, source, target, recursive=recursive, replace=replace)

    async def mkdir(self, path: Path, *, parents: bool = False, exist_ok: bool = False) -> None:
        await self._run.call(
            "files.mkdir", {"path": path, "parents": parents, "exist_ok": exist_ok}
        )

    async def move(self, source: Path, target: Path, *, replace: bool = True) -> None:
        await self._run.call("files.move", {"source": source, "target": target, "replace": replace})

    async def link(
        self, path: Path, target: Path, *, hard: bool = False, anywhere: bool = False
    ) -> None:
        """A symbolic link at `path` with `target` as its text, or with `hard` a second name of the
        file `target`. A symbolic one that would lead out of its root raises `outside`, unless
        `anywhere`."""
        arguments = {"path": path, "target": target, "hard": hard, "any": anywhere}
        await self._run.call("files.link", arguments)

    async def chmod(self, path: Path, mode: int) -> None:
        await self._run.call("files.chmod", {"path": path, "mode": mode})

    async def remove(self, path: Path, *, recursive: bool = False) -> int:
        """How many entries were removed."""
        answer = await self._run.call("files.remove", {"path": path, "recursive": recursive})
        removed: int = answer["removed"]
        return removed
