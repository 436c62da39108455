"""The network between a container and its hub is gone for a while, in the middle of the work.

The container is in a network namespace of its own, whose other end is here: the hub listens on
it. nft(8) drops what passes there, or resets connections as a firewall does. The names of all of
it are random, and the namespace takes its device and its rules along when it goes.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from boxes import events_of, open_box
from podman import Engine
from stack import until

from sidecar.client import Run
from sidecar.hub import Hub, HubSettings

DROP = (
    "add table inet cut;"
    "add chain inet cut in { type filter hook input priority 0; policy drop; };"
    "add chain inet cut out { type filter hook output priority 0; policy drop; };"
)
RESET = (  # what is a reset itself passes, for both ends shall hear of it
    "add table inet cut;"
    "add chain inet cut in { type filter hook input priority 0; };"
    "add chain inet cut out { type filter hook output priority 0; };"
    "add rule inet cut in tcp flags & rst == 0 reject with tcp reset;"
    "add rule inet cut out tcp flags & rst == 0 reject with tcp reset;"
)
SECONDS = 15.0
RATE = "20mbit"  # each way
CONTENT = bytes(range(256)) * (8 << 12)  # 8 MiB, which take some 4 s
LINES = 2_000  # which take some 10 s


class Network:
    """Made by `network`: a namespace, and the address at this end of its one cable."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def rules(self, text: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name, "nft", text], check=True)


def ip(*words: str) -> None:
    run_quietly("ip", *words)


def run_quietly(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[Network]:
    if shutil.which("nft") is None:
        pytest.skip("needs nft")
    name = f"sx{secrets.token_hex(4)}"
    here, there = f"{name}h", f"{name}c"
    block = f"10.203.{secrets.randbelow(256)}"  # of 10/8, which is nobody's (RFC 1918)
    ip("netns", "add", name)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("address", "add", f"{block}.1/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "address", "add", f"{block}.2/30", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        ip("-n", name, "link", "set", "lo", "up")
        for words in (("tc",), ("tc", "-n", name)):
            device = there if "-n" in words else here
            shape = ("tbf", "rate", RATE, "burst", "64kb", "latency", "200ms")
            run_quietly(*words, "qdisc", "add", "dev", device, "root", *shape)
        yield Network(name, f"{block}.1")
    finally:
        ip("netns", "delete", name)
        subprocess.run(["ip", "link", "delete", here], capture_output=True)  # gone with its peer


async def follow(run: Run, lines: list[bytes]) -> None:
    """What a program prints, line by line; it ends with 7."""
    script = f"i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); sleep 0.004; done; exit 7"
    async with run.process(["sh", "-c", script]) as program:
        rest = b""
        async for chunk in program.stdout:
            *whole, rest = (rest + chunk).split(b"\n")
            lines += whole
        assert (rest, (await program.wait()).status) == (b"", 7)


@pytest.mark.parametrize(
    ("rules", "recoveries"), [pytest.param(DROP, 0, id="drop"), pytest.param(RESET, 1, id="reset")]
)
async def test_a_partition_costs_a_wait_and_nothing_else(
    engine: Engine, agent_image: str, tmp_path: Path, network: Network, rules: str, recoveries: int
) -> None:
    hub = Hub(HubSettings(host=network.address))
    lines: list[bytes] = []
    came: list[bytes] = []
    where = f"ns:/run/netns/{network.name}"
    async with open_box(
        engine, agent_image, tmp_path, hub=hub, network=where, insecure="yes"
    ) as box:
        (box.workspace / "theirs.bin").write_bytes(CONTENT)
        run = await box.attach()

        async def write() -> None:
            await run.files.write("ours.bin", CONTENT)
            came.append((box.workspace / "ours.bin").read_bytes())

        async def read() -> None:
            came.append(await run.files.read("theirs.bin"))

        async with anyio.create_task_group() as group:
            group.start_soon(follow, run, lines)
            group.start_soon(write)
            group.start_soon(read)
            await until(lambda: len(lines) > 100)
            network.rules(rules)
            before = len(lines)
            await anyio.sleep(SECONDS)
            assert len(lines) < before + 100
            assert came == []
            network.rules("delete table inet cut")

        assert lines == [b"%d" % number for number in range(LINES)]
        assert came == [CONTENT, CONTENT]
        kinds = Counter([name for _, name in await events_of(run)])
        assert kinds["exec.started"] == kinds["exec.ended"] == kinds["files.written"] == 1
        assert (await run.info())["channel"]["recoveries"] >= recoveries
