"""`files.*`: read, write, list, stat, mkdir, move, remove, inside the workspace.

Hands opens, makes and renames; core moves the bytes. A file that is written is never seen half
done: the bytes go to a temporary file beside it, and the rename comes after size and digest
were found right.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread

from sidecar.callrunner import INLINE_BYTES
from sidecar.context import CallContext, Handler, Resumer
from sidecar.digest import Digest
from sidecar.errors import CallError, Code, Invalid, Started, from_os_error
from sidecar.filesource import FileSource, RangeSource
from sidecar.hands.interface import Entry, FileStat, Path, Upload, stat_of
from sidecar.protocol.commands import (
    FilesList,
    FilesMkdir,
    FilesMove,
    FilesRead,
    FilesRemove,
    FilesStat,
    FilesWrite,
)
from sidecar.protocol.envelope import dumps, loads
from sidecar.protocol.limits import CONTENT_WAIT, NOTE_BYTES
from sidecar.protocol.streams import CONTENT
from sidecar.streaming import Receiver

SMALL = INLINE_BYTES - 1024  # content that stands in the result, beside its other fields


async def read(ctx: CallContext, arguments: FilesRead) -> dict[str, Any]:
    """The bytes of a range; see `FilesRead`."""
    fd = await ctx.hands.open(arguments.path)
    file = FileSource(fd, what=arguments.path)
    try:
        stat = stat_of(os.fstat(fd))
        if arguments.offset > stat.size:
            raise Invalid(
                f"a range from {arguments.offset}: the file has {stat.size} bytes", size=stat.size
            )
        length = stat.size - arguments.offset
        if arguments.length is not None:
            length = min(length, arguments.length)
        answer = {
            "size": stat.size,
            "offset": arguments.offset,
            "length": length,
            "etag": stat.etag,
            "mode": stat.mode,
            "mtime_ns": stat.mtime_ns,
        }
        source = RangeSource(file, arguments.offset, length)
        if arguments.inline and length <= SMALL:
            return {**answer, "content": await _read_all(source, length)}
        ctx.check_streams()
        note = dumps([arguments.path, answer])
        if len(note) <= NOTE_BYTES:  # else it is begun anew, or not at all
            await ctx.started(note)
        ctx.send(CONTENT, source)
    except BaseException:
        file.close()
        raise
    return answer


async def resume_read(ctx: CallContext, note: bytes) -> dict[str, Any]:
    """Send on from the same file. Raises `source_changed` if it is not the same any more."""
    path: Path
    answer: dict[str, Any]
    path, answer = loads(note)
    fd = await ctx.hands.open(path)
    file = FileSource(fd, what=path, etag=answer["etag"])
    try:
        source = RangeSource(file, answer["offset"], answer["length"])
        ctx.send(CONTENT, source, sent=answer["length"])
    except BaseException:
        file.close()
        raise
    return answer


async def _read_all(source: RangeSource, length: int) -> bytes:
    parts: list[bytes] = []
    have = 0
    while have < length:
        piece = await source.read(have, length - have)
        parts.append(piece.data)
        have += len(piece.data)
    await source.aclose()
    return b"".join(parts)


async def write(ctx: CallContext, arguments: FilesWrite) -> dict[str, Any]:
    """Replace a file with `content` or stream 3; see `FilesWrite`."""
    await ctx.started()
    upload = await ctx.hands.replace(arguments.path, parents=arguments.parents)
    try:
        if arguments.content is not None:
            size, sha256 = await _write_inline(upload, arguments.content, arguments.path)
        else:
            size, sha256 = await _write_stream(upload, ctx.receiver(CONTENT), arguments.path)
        _check(arguments, size, sha256)
        stat = await upload.commit(mode=arguments.mode, mtime_ns=arguments.mtime_ns)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await upload.abort()
        raise
    ctx.emit("files.written", {"path": arguments.path, "size": size, "sha256": sha256})
    return {"size": size, "sha256": sha256, "etag": stat.etag, "mode": stat.mode}


def _check(arguments: FilesWrite, size: int, sha256: bytes) -> None:
    if arguments.size is not None and arguments.size != size:
        raise CallError(
            Code.INVALID,
            f"{size} bytes came, {arguments.size} were announced",
            started=Started.YES,
            size=size,
        )
    if arguments.sha256 is not None and arguments.sha256 != sha256:
        raise CallError(
            Code.DIGEST_MISMATCH,
            f"the {size} bytes that came have SHA-256 {sha256.hex()},"
            f" {arguments.sha256.hex()} was expected",
            started=Started.YES,
            sha256=sha256,
        )


async def _write_inline(upload: Upload, content: bytes, path: Path) -> tuple[int, bytes]:
    await _write_all(upload.fd, [content], path)
    digest = Digest()
    digest.update(content)
    return len(content), await digest.digest()


async def _write_stream(upload: Upload, receiver: Receiver, path: Path) -> tuple[int, bytes]:
    size = 0
    while chunks := await _more(receiver):
        await _write_all(upload.fd, chunks, path)
        size += sum(map(len, chunks))
    ended = receiver.stream.ended
    assert ended is not None
    if receiver.stream.skipped or ended.start:
        raise Invalid("a stream with holes cannot become a file")
    return size, ended.sha256


async def _more(receiver: Receiver) -> list[bytes]:
    """The next chunks. A caller that was killed sends no more, and nothing tells: an end of the
    wait gives back the temporary file and the place among open calls."""
    with anyio.move_on_after(CONTENT_WAIT):
        return await receiver.receive_all()
    error = CallError(
        Code.TIMEOUT,
        f"no byte came for {CONTENT_WAIT:g} s after the first {receiver.position}",
        started=Started.YES,
        which="content",
    )
    receiver.reset(error)
    raise error


async def _write_all(fd: int, chunks: Sequence[bytes], path: Path) -> None:
    """One hop to a thread for all that waits: a write may block on a slow disk."""

    def work() -> None:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]

    try:
        await anyio.to_thread.run_sync(work)
    except OSError as error:
        raise from_os_error(error, path, started=Started.YES) from error


async def list_directory(ctx: CallContext, arguments: FilesList) -> dict[str, Any]:
    """One page of a directory."""
    after = None if arguments.after is None else os.fsencode(arguments.after)
    page = await ctx.hands.list(arguments.path, after=after, limit=arguments.limit)
    answer: dict[str, Any] = {"entries": [_entry(entry) for entry in page.entries]}
    if page.more:
        answer["next"] = show_name(page.entries[-1].name)
    return answer


async def stat(ctx: CallContext, arguments: FilesStat) -> dict[str, Any]:
    """One path; of a link itself unless `follow`."""
    return _describe(await ctx.hands.stat(arguments.path, follow=arguments.follow))


async def mkdir(ctx: CallContext, arguments: FilesMkdir) -> dict[str, Any]:
    await ctx.started()
    await ctx.hands.mkdir(
        arguments.path,
        parents=arguments.parents,
        exist_ok=arguments.exist_ok,
        mode=arguments.mode,
    )
    return {}


async def move(ctx: CallContext, arguments: FilesMove) -> dict[str, Any]:
    await ctx.started()
    await ctx.hands.rename(arguments.source, arguments.target, replace=arguments.replace)
    ctx.emit("files.moved", {"source": arguments.source, "target": arguments.target})
    return {}


async def remove(ctx: CallContext, arguments: FilesRemove) -> dict[str, Any]:
    await ctx.started()
    removed = await ctx.hands.remove(arguments.path, recursive=arguments.recursive)
    ctx.emit("files.removed", {"path": arguments.path, "removed": removed})
    return {"removed": removed}


def show_name(name: bytes) -> str | bytes:
    """A name as it travels: text where it is UTF-8, else its bytes."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def _entry(entry: Entry) -> dict[str, Any]:
    return {"name": show_name(entry.name), **_describe(entry.stat)}


def _describe(stat: FileStat) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": str(stat.type),
        "size": stat.size,
        "mode": stat.mode,
        "mtime_ns": stat.mtime_ns,
        "uid": stat.uid,
        "gid": stat.gid,
        "links": stat.links,
        "etag": stat.etag,
    }
    if stat.target is not None:
        described["target"] = show_name(stat.target)
    return described


HANDLERS: dict[str, Handler] = {
    "files.read": read,
    "files.write": write,
    "files.list": list_directory,
    "files.stat": stat,
    "files.mkdir": mkdir,
    "files.move": move,
    "files.remove": remove,
}
RESUMERS: dict[str, Resumer] = {"files.read": resume_read}
