"""`examples/azure/mint.py` against the embedded hub, which stands in for Azure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import jwt
import pytest

from sidecar.client import Controller
from sidecar.hub import Hub, serve

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples/azure"
TIME = 30  # seconds
STRING = f"Endpoint=https://name.webpubsub.azure.com;AccessKey={'c2VjcmV0' * 8};Version=1.0;"
WHO = [
    pytest.param(["demo-1"], ["--sidecar"], id="sidecar"),
    pytest.param(["demo-1", "me"], ["--controller", "me"], id="controller"),
    pytest.param(["demo-1", "me", "watch"], ["--controller", "me", "--watch"], id="watching"),
]


def python(*arguments: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=TIME,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def mint(connection_string: str, *arguments: str) -> str:
    script = str(FOLDER / "mint.py")
    return python(script, *arguments, WEBPUBSUB_CONNECTION_STRING=connection_string)


def claims_of(url: str) -> dict[str, Any]:
    """All of them but the times."""
    claims: dict[str, Any] = jwt.decode(
        url.partition("?access_token=")[2], options={"verify_signature": False}
    )
    life = claims.pop("exp") - claims.pop("iat")
    assert abs(life - 3600) <= 1
    claims.pop("nbf", None)
    return claims


@pytest.mark.parametrize(("ours", "theirs"), WHO)
def test_a_token_grants_what_our_own_verb_grants(
    tmp_path: Path, ours: list[str], theirs: list[str]
) -> None:
    (tmp_path / "hub.key").write_text(STRING)
    verb = ["-m", "sidecar", "token", "--key-file", str(tmp_path / "hub.key"), "--run", "demo-1"]
    from_verb = python(*verb, "--lifetime", "3600", *theirs)
    from_sdk = mint(STRING, *ours)
    assert claims_of(from_sdk) == claims_of(from_verb)
    assert from_sdk.partition("?")[0] == from_verb.partition("?")[0]


def test_the_table_of_the_readme_is_what_the_tokens_say() -> None:
    """Row by row: user id, groups, roles."""
    rows = re.findall(r"^\| ([a-z].+?) \|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == len(WHO)
    for row, case in zip(rows, WHO, strict=True):
        claims = claims_of(mint(STRING, *case.values[0]))
        user, groups, roles = (re.findall(r"`(.+?)`", cell) for cell in row.split(" | ")[1:])
        assert (user, groups, roles) == (
            [claims["sub"]],
            claims["webpubsub.group"],
            claims["role"],
        )


async def test_sidecar_and_controllers_dial_with_them(tmp_path: Path) -> None:
    hub = Hub()
    async with serve(hub) as address:

        async def minted(*arguments: str) -> str:
            return await anyio.to_thread.run_sync(mint, address.connection_string, *arguments)

        (tmp_path / "token").write_text(await minted("demo-1"))
        command = ["--run", "demo-1", "--token-file", "token", "--state", "state"]
        async with await anyio.open_process(
            [sys.executable, "-m", "sidecar", "run", *command], cwd=tmp_path, stderr=None
        ) as process:
            url = await minted("demo-1", "me")
            async with Controller.connect(url, controller="me") as controller:
                run = await controller.attach("demo-1")
                assert (await run.exec(["echo", "in"])).stdout == b"in\n"
            url = await minted("demo-1", "me", "watch")
            async with Controller.connect(url, controller="me", watch=True) as controller:
                run = await controller.attach("demo-1")
                assert (await run.info())["run"] == "demo-1"
            process.terminate()
            with anyio.fail_after(TIME):
                assert await process.wait() == 0


def test_a_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (FOLDER / "README.md").read_text())
    assert len(links) >= 3
    assert [link for link in links if not (FOLDER / link).exists()] == []
