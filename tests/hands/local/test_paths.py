"""The path operations, through both forms of hands and with both ways of resolving."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code
from sidecar.hands.interface import FileType, Hands
from sidecar.hands.local import paths as module


async def test_a_file_is_opened_for_reading(hands: Hands, root: Path) -> None:
    (root / "file").write_bytes(b"content")
    opened = await hands.open("file")
    assert os.read(opened, 100) == b"content"
    assert not os.get_inheritable(opened)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(opened, b"x")
    os.close(opened)


@pytest.mark.parametrize(
    "path, code",
    [
        ("folder", Code.IS_DIRECTORY),
        ("", Code.IS_DIRECTORY),
        ("fifo", Code.UNSUPPORTED),
        ("socket", Code.UNSUPPORTED),
        ("nothing", Code.NOT_FOUND),
        ("out", Code.OUTSIDE),
        ("out-folder/secret", Code.OUTSIDE),
    ],
)
async def test_only_regular_files_are_opened(
    hands: Hands, root: Path, path: str, code: Code
) -> None:
    (root / "folder").mkdir()
    os.mkfifo(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    (root / "out").symlink_to("../outside/secret")
    (root / "out-folder").symlink_to("../outside")
    with pytest.raises(CallError) as caught:
        await hands.open(path)
    assert caught.value.code == code


async def test_the_writer_of_a_fifo_never_meets_us(hands: Hands, root: Path) -> None:
    os.mkfifo(root / "fifo")
    with pytest.raises(CallError):
        await hands.open("fifo")
    with pytest.raises(OSError, match="No such device"):  # ENXIO: there was no reader
        os.open(root / "fifo", os.O_WRONLY | os.O_NONBLOCK)


async def test_stat_says_what_lstat_says(hands: Hands, root: Path) -> None:
    (root / "file").write_bytes(b"12345")
    (root / "file").chmod(0o4640)
    (root / "link").symlink_to("file")
    os.utime(root / "file", ns=(1, 1_234_567_890_123_456_789))

    found = await hands.stat("file")
    assert (found.type, found.size, found.mode) == (FileType.FILE, 5, 0o4640)
    assert found.mtime_ns == 1_234_567_890_123_456_789
    assert found.inode == (root / "file").stat().st_ino
    assert found.target is None

    link = await hands.stat("link")
    assert (link.type, link.target) == (FileType.SYMLINK, b"file")
    assert await hands.stat("link", follow=True) == found
    assert (await hands.stat("")).type == FileType.DIRECTORY


async def test_a_directory_is_made(hands: Hands, root: Path) -> None:
    await hands.mkdir("new/", mode=0o700)
    assert stat.S_IMODE((root / "new").stat().st_mode) == 0o700
    with pytest.raises(CallError) as caught:
        await hands.mkdir("new")
    assert caught.value.code == Code.EXISTS
    await hands.mkdir("new", exist_ok=True)
    await hands.mkdir("", exist_ok=True)


async def test_parents_are_made_when_asked_for(hands: Hands, root: Path) -> None:
    with pytest.raises(CallError) as caught:
        await hands.mkdir("a/b/c")
    assert caught.value.code == Code.NOT_FOUND
    await hands.mkdir("a/b/c", parents=True)
    await hands.mkdir("a/b/d", parents=True)
    await hands.mkdir("a/b/d", parents=True, exist_ok=True)
    assert (root / "a/b/c").is_dir()
    assert (root / "a/b/d").is_dir()


@pytest.mark.parametrize(
    "path, code",
    [
        ("missing/../../escaped", Code.NOT_FOUND),
        ("missing/../../../escaped/x", Code.NOT_FOUND),
        ("../escaped/x", Code.OUTSIDE),
        ("out/escaped/x", Code.OUTSIDE),
        ("dangling/x/y", Code.NOT_DIRECTORY),
        ("file/x/y", Code.NOT_DIRECTORY),
    ],
)
async def test_no_parent_is_made_outside(hands: Hands, root: Path, path: str, code: Code) -> None:
    (root / "out").symlink_to("../outside")
    (root / "dangling").symlink_to("elsewhere")
    (root / "file").touch()
    with pytest.raises(CallError) as caught:
        await hands.mkdir(path, parents=True)
    assert caught.value.code == code
    assert sorted(os.listdir(root.parent)) == ["outside", "root"]
    assert os.listdir(root.parent / "outside") == ["secret"]


async def test_exist_ok_does_not_take_a_file_for_a_directory(hands: Hands, root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(CallError) as caught:
        await hands.mkdir("file", exist_ok=True)
    assert caught.value.code == Code.EXISTS


@pytest.mark.parametrize("mode", [-1, 0o10000])
async def test_a_mode_is_permission_bits(hands: Hands, mode: int) -> None:
    for call in (hands.mkdir("x", mode=mode), hands.chmod("", mode)):
        with pytest.raises(CallError) as caught:
            await call
        assert caught.value.code == Code.INVALID


async def test_a_name_is_replaced_or_kept(hands: Hands, root: Path) -> None:
    (root / "a").write_bytes(b"a")
    (root / "b").write_bytes(b"b")
    with pytest.raises(CallError) as caught:
        await hands.rename("a", "b", replace=False)
    assert caught.value.code == Code.EXISTS
    assert (root / "b").read_bytes() == b"b"

    await hands.rename("a", "c", replace=False)
    await hands.rename("c", "b")
    assert (root / "b").read_bytes() == b"a"
    assert os.listdir(root) == ["b"]


@pytest.mark.parametrize(
    "source, target, code",
    [
        ("nothing", "x", Code.NOT_FOUND),
        ("file", "nothing/x", Code.NOT_FOUND),
        ("file", "x/", Code.NOT_DIRECTORY),
        ("file/", "x", Code.NOT_DIRECTORY),
        ("file", "folder", Code.IS_DIRECTORY),
        ("folder", "file", Code.NOT_DIRECTORY),
        ("folder", "folder/below", Code.INVALID),
        ("folder", "full", Code.NOT_EMPTY),
        ("", "x", Code.INVALID),
        ("file", "..", Code.INVALID),
        ("file", "../escaped", Code.OUTSIDE),
        ("../outside/secret", "x", Code.OUTSIDE),
        ("out/secret", "x", Code.OUTSIDE),
        ("file", "out/escaped", Code.OUTSIDE),
    ],
)
async def test_what_cannot_be_renamed_has_a_code(
    hands: Hands, root: Path, source: str, target: str, code: Code
) -> None:
    (root / "file").touch()
    (root / "folder").mkdir()
    (root / "full/x").mkdir(parents=True)
    (root / "out").symlink_to("../outside")
    with pytest.raises(CallError) as caught:
        await hands.rename(source, target)
    assert caught.value.code == code


async def test_a_link_is_renamed_and_not_what_it_points_to(hands: Hands, root: Path) -> None:
    (root / "out").symlink_to("../outside/secret")
    await hands.rename("out", "moved")
    assert (root / "moved").is_symlink()
    assert (root.parent / "outside/secret").exists()


@pytest.mark.parametrize("number", [38, 22], ids=["ENOSYS", "EINVAL"])
async def test_a_file_system_that_cannot_keep_a_name_says_so(
    any_hands: Hands, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def missing(*arguments: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(module, "renameat2", missing)
    (root / "file").touch()
    with pytest.raises(CallError) as caught:
        await any_hands.rename("file", "x", replace=False)
    assert caught.value.code == Code.UNSUPPORTED


async def test_a_file_gets_a_second_name(hands: Hands, root: Path) -> None:
    (root / "file").write_bytes(b"x")
    (root / "link").symlink_to("../outside/secret")
    await hands.link("file", "again")
    assert (root / "again").samefile(root / "file")

    await hands.link("link", "link-again")
    assert (root / "link-again").is_symlink()

    for source, target, code in (
        ("file", "again", Code.EXISTS),
        (".", "x", Code.INVALID),
        ("../outside/secret", "x", Code.OUTSIDE),
    ):
        with pytest.raises(CallError) as caught:
            await hands.link(source, target)
        assert caught.value.code == code


async def test_a_directory_gets_no_second_name(hands: Hands, root: Path) -> None:
    (root / "folder").mkdir()
    with pytest.raises(CallError) as caught:
        await hands.link("folder", "x")
    assert caught.value.code == Code.IS_DIRECTORY


async def test_chmod_changes_files_but_no_links(hands: Hands, root: Path) -> None:
    (root / "file").touch()
    (root / "link").symlink_to("file")
    (root / "out").symlink_to("../outside/secret")
    await hands.chmod("file", 0o751)
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o751
    before = (root.parent / "outside/secret").stat().st_mode
    for path in ("link", "out"):
        with pytest.raises(CallError) as caught:
            await hands.chmod(path, 0o777)
        assert caught.value.code == Code.UNSUPPORTED
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o751
    assert (root.parent / "outside/secret").stat().st_mode == before


async def test_utimes_are_set_on_the_path_itself(hands: Hands, root: Path) -> None:
    (root / "out").symlink_to("../outside/secret")
    (root / "folder").mkdir()
    secret = (root.parent / "outside/secret").stat().st_mtime_ns
    await hands.utimes("out", atime_ns=1, mtime_ns=2_000_000_000)
    await hands.utimes("folder", atime_ns=1, mtime_ns=3_000_000_001)
    assert (root / "out").lstat().st_mtime_ns == 2_000_000_000
    assert (root / "folder").stat().st_mtime_ns == 3_000_000_001
    assert (root.parent / "outside/secret").stat().st_mtime_ns == secret
    with pytest.raises(CallError) as caught:
        await hands.utimes("folder", atime_ns=1, mtime_ns=2**63)
    assert caught.value.code == Code.INVALID


async def test_names_that_are_not_utf_8_work_everywhere(hands: Hands, root: Path) -> None:
    await hands.mkdir(b"\xfe/\xff", parents=True)
    upload = await hands.replace(b"\xfe/\xff/\x80")
    os.write(upload.fd, b"x")
    await upload.commit()
    await hands.rename(b"\xfe/\xff/\x80", "\udcfe/\udc81")
    await hands.link(b"\xfe/\x81", b"\x82")
    await hands.chmod(b"\x82", 0o600)
    await hands.utimes(b"\x82", atime_ns=0, mtime_ns=0)
    page = await hands.walk("")
    assert [entry.path for entry in page.entries] == [b"\x82", b"\xfe", b"\xfe/\x81", b"\xfe/\xff"]
    os.close(await hands.open(b"\x82"))
    assert await hands.remove(b"\xfe", recursive=True) == 3
    assert os.listdir(os.fsencode(root)) == [b"\x82"]


async def test_an_error_names_the_path_as_it_was_written(hands: Hands, root: Path) -> None:
    with pytest.raises(CallError) as caught:
        await hands.stat("some//where/../x")
    assert "'some//where/../x'" in caught.value.message
    assert str(root) not in caught.value.message
