"""The local sockets: whatever the agent sends to its own, the sidecar goes on."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from stack import until

from sidecar import localsocket
from sidecar.localsocket import LINE_BYTES, LocalSocket, ask


async def health(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"healthy": True, "asked": request.get("for")}


async def defect(request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise KeyError("a defect")


async def not_for_json(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"id": b"\x00"}


def is_open(path: Path) -> bool:
    """Whether somebody listens; the path is there a moment before."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@asynccontextmanager
async def serving(folder: Path, *, admin: bool = False) -> AsyncIterator[Path]:
    path = folder / "test.sock"
    async with anyio.create_task_group() as group:
        operations = {"health": health, "defect": defect, "bytes": not_for_json}
        group.start_soon(LocalSocket(path, operations, admin=admin).run)
        await until(lambda: is_open(path))
        yield path
        await wait_all_tasks_blocked()  # anyio trips over a hang-up that meets a cancellation
        group.cancel_scope.cancel()


@pytest.mark.parametrize("admin", [False, True])
async def test_one_line_in_one_line_out(admin: bool, tmp_path: Path) -> None:
    async with serving(tmp_path, admin=admin) as path:
        assert await ask(path, {"op": "health", "for": 1}) == {"healthy": True, "asked": 1}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


@pytest.mark.parametrize("name", ["defect", "bytes"])
async def test_a_defect_of_an_operation_ends_nothing_but_its_answer(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as path:
        answer = await ask(path, {"op": name})
        assert answer["error"] == "internal"
        assert (await ask(path, {"op": "health"}))["healthy"]
    assert f"the operation {name!r} failed inside" in caplog.text


async def test_a_socket_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "test.sock").touch()
    async with serving(tmp_path) as path:
        assert (await ask(path, {"op": "health"}))["healthy"]


NOT_REQUESTS = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"health\n", id="no-json"),
    pytest.param(b"[]\n", id="a-list"),
    pytest.param(b'{"op": ["health"]}\n', id="op-a-list"),
    pytest.param(b'{"op": "drop tables"}\n', id="unknown"),
    pytest.param(b"\xff\xfe\n", id="no-utf8"),
    pytest.param(b"[" * 60_000 + b"\n", id="nested"),
    pytest.param(b"9" * 60_000 + b"\n", id="large-number"),
    pytest.param(b"x" * (LINE_BYTES + 10_000), id="too-long"),
    pytest.param(b'{"op": "heal', id="cut-off"),
]


@pytest.mark.parametrize("data", NOT_REQUESTS)
@pytest.mark.parametrize("waits", [True, False], ids=["waits", "hangs-up"])
async def test_what_is_no_request_is_refused_and_others_are_served(
    data: bytes, waits: bool, tmp_path: Path
) -> None:
    async with serving(tmp_path) as path:
        async with await anyio.connect_unix(path) as stream:
            await stream.send(data)
            if waits and data.endswith((b"\n", b"x")):
                with anyio.fail_after(5):
                    assert b'"error": "invalid"' in await stream.receive()
        assert (await ask(path, {"op": "health"}))["healthy"]


async def test_a_silent_connection_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localsocket, "IDLE", 0.05)
    async with serving(tmp_path) as path, await anyio.connect_unix(path) as stream:
        with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_silent_connections_hold_up_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localsocket, "IDLE", 0.2)
    async with serving(tmp_path) as path:
        streams = [await anyio.connect_unix(path) for _ in range(localsocket.CONNECTIONS)]
        assert (await ask(path, {"op": "health"}))["healthy"]
        for stream in streams:
            await stream.aclose()


async def test_an_answer_is_waited_for_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localsocket, "IDLE", 0.05)

    async def slow(request: Mapping[str, Any]) -> Mapping[str, Any]:
        await anyio.sleep(0.2)
        return {"done": True}

    path = tmp_path / "slow.sock"
    async with anyio.create_task_group() as group:
        group.start_soon(LocalSocket(path, {"slow": slow}).run)
        await until(lambda: is_open(path))
        assert await ask(path, {"op": "slow"}) == {"done": True}
        await wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def test_a_sidecar_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await ask(tmp_path / "nobody.sock", {"op": "health"})
