"""Several roots: whose a path is, what may be changed, and that none leads into another."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from servedhands import reach

from sidecar.errors import CallError, Code
from sidecar.hands.interface import Hands, Program, Selection
from sidecar.hands.local.hands import LocalHands
from sidecar.hands.local.roots import Roots, open_roots
from sidecar.hands.rootlist import ListedRoot


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A root for reading, in which `spare` is one that may be changed."""
    data = tmp_path / "data"
    (data / "spare").mkdir(parents=True)
    (data / "file").write_bytes(b"of the data")
    (data / "spare/file").write_bytes(b"spare")
    return data


@pytest.fixture
def listed(data: Path) -> list[ListedRoot]:
    return [ListedRoot(str(data)), ListedRoot(str(data / "spare"), writable=True)]


@pytest.fixture
def several(root: Path, listed: list[ListedRoot]) -> Iterator[Roots]:
    roots = open_roots(str(root), listed)
    yield roots
    roots.close()


@pytest.fixture(params=["in-process", "socket"])
async def hands(
    request: pytest.FixtureRequest, root: Path, listed: list[ListedRoot], socket_path: Path
) -> AsyncIterator[Hands]:
    async with LocalHands.open_root(str(root), roots=listed) as local:
        if request.param == "in-process":
            yield local
            return
        async with reach(local, socket_path) as hands:
            yield hands


async def refusal(hands: Hands, method: str, *arguments: object, **options: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await getattr(hands, method)(*arguments, **options)
    return caught.value


# Whose a path is ---------------------------------------------------------------------------


def test_a_relative_path_is_of_the_workspace(several: Roots) -> None:
    assert several.of("data/file") is several.workspace
    assert several.of("") is several.workspace


def test_an_absolute_path_is_of_the_deepest_root_that_it_names(
    several: Roots, root: Path, data: Path
) -> None:
    assert several.of(str(root / "file")) is several.workspace
    assert several.of(str(data / "file")).path == os.fsencode(data)
    assert several.of(str(data / "spare/file")).path == os.fsencode(data / "spare")
    assert several.of(f"//{data}/./spare//file").path == os.fsencode(data / "spare")
    assert several.of(str(data / "sparerib")).path == os.fsencode(data)


def test_the_name_of_a_root_is_the_root(several: Roots, data: Path) -> None:
    for name in (str(data), f"{data}/", f"{data}/."):
        with several.resolved(name) as found:
            assert os.path.samestat(os.fstat(found), os.stat(data))
        with pytest.raises(CallError) as caught, several.parent(name, write=False):
            pass
        assert caught.value.code is Code.INVALID


@pytest.mark.parametrize("path", ["/", "/etc/passwd", "D/../root", "D/../outside/secret", "D-not"])
def test_what_lies_below_no_root_is_outside(several: Roots, data: Path, path: str) -> None:
    with pytest.raises(CallError) as caught:
        os.close(several.resolve(path.replace("D", str(data))))
    assert (caught.value.code, caught.value.details["path"]) == (
        Code.OUTSIDE,
        path.replace("D", str(data)),
    )


@pytest.mark.parametrize("target", ["D", "D/file", "../data/file"])
def test_no_link_leads_from_one_root_into_another(
    several: Roots, root: Path, data: Path, target: str
) -> None:
    (root / "link").symlink_to(target.replace("D", str(data)))
    with pytest.raises(CallError) as caught:
        os.close(several.resolve("link"))
    assert caught.value.code is Code.OUTSIDE


def test_a_root_that_cannot_be_opened_leaves_none_open(root: Path, data: Path) -> None:
    with pytest.raises(CallError, match="nothing"):
        open_roots(str(root), [ListedRoot(str(data)), ListedRoot(str(data / "nothing"))])


# What may be changed -----------------------------------------------------------------------


async def test_files_of_all_roots_are_read(hands: Hands, data: Path) -> None:
    fd = await hands.open(str(data / "file"))
    assert os.read(fd, 100) == b"of the data"
    os.close(fd)
    assert (await hands.stat(str(data / "file"))).size == 11
    page = await hands.walk(str(data), Selection(depth=1))
    assert [entry.path for entry in page.entries] == [b"file", b"spare"]


@pytest.mark.parametrize(
    "method, arguments, options",
    [
        ("replace", ["D/file"], {}),
        ("replace", ["D/new/file"], {"parents": True}),
        ("mkdir", ["D/new"], {}),
        ("mkdir", ["D/new/er"], {"parents": True}),
        ("rename", ["D/file", "D/other"], {}),
        ("rename", ["file", "D/file"], {}),
        ("link", ["D/file", "D/other"], {}),
        ("link", ["file", "D/other"], {}),
        ("remove", ["D/file"], {}),
        ("remove", ["D/sub"], {"recursive": True}),
        ("chmod", ["D/file", 0o600], {}),
        ("utimes", ["D/file"], {"atime_ns": 1, "mtime_ns": 1}),
    ],
)
async def test_nothing_changes_below_a_root_for_reading(
    hands: Hands, root: Path, data: Path, method: str, arguments: list[object], options: dict
) -> None:
    (root / "file").write_bytes(b"of the workspace")
    before = {path: path.stat() for path in (data, *data.rglob("*"))}
    paths = [a.replace("D", str(data)) if isinstance(a, str) else a for a in arguments]
    error = await refusal(hands, method, *paths, **options)
    assert (error.code, error.details["path"]) == (
        Code.READ_ONLY,
        next(path for path in reversed(paths) if isinstance(path, str)),
    )
    assert {path: path.stat() for path in (data, *data.rglob("*"))} == before
    assert (root / "file").read_bytes() == b"of the workspace"


async def test_a_directory_that_is_there_need_not_be_made(hands: Hands, data: Path) -> None:
    await hands.mkdir(str(data / "spare"), exist_ok=True, parents=True)


async def test_a_root_that_may_be_changed_is_changed(hands: Hands, data: Path) -> None:
    spare = data / "spare"
    upload = await hands.replace(str(spare / "deep/er/file"), parents=True)
    os.write(upload.fd, b"new")
    await upload.commit(mode=0o640)
    await hands.rename(str(spare / "deep/er/file"), str(spare / "moved"))
    await hands.link(str(spare / "moved"), str(spare / "again"))
    await hands.chmod(str(spare / "again"), 0o600)
    assert (spare / "moved").read_bytes() == b"new"
    assert (spare / "moved").stat().st_mode & 0o777 == 0o600
    assert await hands.remove(str(spare / "deep"), recursive=True) == 2


async def test_a_link_in_another_root_is_written_through_in_its_own(
    hands: Hands, data: Path
) -> None:
    spare = data / "spare"
    (spare / "link").symlink_to("sub/target")
    (spare / "sub").mkdir()
    upload = await hands.replace(str(spare / "link"))
    os.write(upload.fd, b"through")
    await upload.commit()
    assert (spare / "link").is_symlink()
    assert (spare / "sub/target").read_bytes() == b"through"


@pytest.mark.parametrize("method", ["rename", "link"])
@pytest.mark.parametrize("source", ["D/file", "D/spare/file"])
async def test_an_entry_stays_in_its_root(
    hands: Hands, root: Path, data: Path, method: str, source: str
) -> None:
    source = source.replace("D", str(data))
    error = await refusal(hands, method, source, "taken")
    assert (error.code, error.details["path"]) == (Code.UNSUPPORTED, source)
    assert error.message == f"{source!r} and 'taken' lie below different roots: copy it"
    assert os.path.exists(source)
    assert os.listdir(root) == []


# The rest ----------------------------------------------------------------------------------


async def test_a_program_starts_in_any_root(hands: Hands, data: Path) -> None:
    running = await hands.spawn(Program(argv=["cat", "file"], cwd=str(data)), key=b"call")
    assert (await hands.wait(b"call")).status == 0
    assert running.stderr is not None
    os.close(running.stderr)
    assert os.read(running.stdout, 100) == b"of the data"
    os.close(running.stdout)


async def test_the_roots_are_among_the_capabilities(hands: Hands, data: Path) -> None:
    found = await hands.capabilities()
    assert found["roots"] == f"{data}:ro,{data}/spare:rw"


async def test_no_further_roots_are_shown_as_nothing(local: LocalHands) -> None:
    assert (await local.capabilities())["roots"] == ""
