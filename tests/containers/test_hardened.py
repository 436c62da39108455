"""A hardened container: everything of the demo holds in it, and it tells how it is."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest
from boxes import open_box, until
from images import Images
from podman import HARDENED, Engine

from sidecar.client import CallError, Code
from sidecar.hub import Hub, HubSettings

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) [\w.]+: .+")


@pytest.mark.timeout(900)  # it builds images, and then works for a minute
def test_every_promise_of_the_demo_holds_without_a_network(engine: Engine, images: Images) -> None:
    flags = ("--rm", "--network=none", *HARDENED)
    shown = engine.output("run", *flags, images.dev, "demo", timeout=240)
    assert re.search(r"Every promise held: (\d+) of \1, in", shown), shown


async def test_it_may_write_only_where_it_was_told_to(
    engine: Engine, agent_image: str, tmp_path: Path
) -> None:
    async with open_box(engine, agent_image, tmp_path, "--read-only-tmpfs=false") as box:
        run = await box.attach()
        await run.files.write("here.txt", b"words")
        assert (box.workspace / "here.txt").read_bytes() == b"words"
        refused = await run.exec(["sh", "-c", "touch /x /etc/x /opt/sidecar/x /tmp/x"])
        assert refused.stderr.count(b"Read-only file system") == 4
        with pytest.raises(CallError) as caught:
            await run.files.write("/opt/sidecar/lib/x", b"")
        assert caught.value.code is Code.OUTSIDE


async def test_health_follows_the_channel_and_liveness_does_not(
    engine: Engine, agent_image: str, tmp_path: Path
) -> None:
    hub = Hub(HubSettings())
    async with open_box(engine, agent_image, tmp_path, hub=hub) as box:
        await box.attach()
        await box.podman("healthcheck", "run", box.name)
        assert (await box.health(), await box.health("--live")) == (0, 0)

        async with anyio.create_task_group() as group:
            group.start_soon(hub.leave, 600)

            async def is_unhealthy() -> bool:
                return await box.health() == 1

            await until(is_unhealthy)
            assert await box.podman("healthcheck", "run", box.name, check=False) == "unhealthy"
            assert await box.health("--live") == 0
            group.cancel_scope.cancel()


@pytest.mark.parametrize(
    "is_forgotten", [pytest.param(False, id="recovered"), pytest.param(True, id="dialled anew")]
)
async def test_the_log_is_plain_lines_and_few_while_connections_break_and_break(
    engine: Engine, agent_image: str, tmp_path: Path, is_forgotten: bool
) -> None:
    hub = Hub(HubSettings())
    async with open_box(engine, agent_image, tmp_path, "--tty", hub=hub) as box:
        await box.attach()
        drops = 0
        with anyio.move_on_after(10):  # as fast as it comes back
            while True:
                if is_forgotten:
                    hub.forget("sandbox:demo")
                drops += await hub.drop("sandbox:demo")
                await anyio.sleep(0.01)
        lines = await box.log()
        assert drops >= 3
        assert [line for line in lines if not LINE.fullmatch(line)] == []
        assert len(lines) < 60
