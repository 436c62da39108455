"""`python -m tests.chaos.partition --seconds 10`: core's network is gone, and nobody is told.

Core runs in a network namespace of its own, joined to the hub's by a pair of virtual devices
(veth(4)); nft(8) drops every packet there for a while: no reset, no error, as when a cable is
pulled behind a switch. All of it lies in namespaces that end with this process (unshare(2)).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from tests.chaos.conductor import Conductor
from tests.chaos.faults import Fault, Kind, Unit
from tests.chaos.judge import judge
from tests.chaos.proxy import Way
from tests.chaos.report import Report, show
from tests.chaos.season import Outcome
from tests.chaos.stage import Stage
from tests.chaos.strikes import Strikes

CLONE_NEWNET = 0x40000000  # linux/sched.h
HUB, CORE = "10.0.0.1", "10.0.0.2"  # addresses that exist in these namespaces alone
WATCHDOG = 100.0  # seconds besides the partition's
EX_NOPERM = 77  # sysexits(3): namespaces or nft are not to be had here
DROP = (
    "add table inet chaos;"
    "add chain inet chaos in { type filter hook input priority 0; policy drop; };"
    "add chain inet chaos out { type filter hook output priority 0; policy drop; };"
)
PASS = "delete table inet chaos"


class SplitStage(Stage):
    """Core in a namespace of its own, whose process is `holder`."""

    host = HUB
    core_settings = {"SIDECAR_INSECURE": "yes", "SIDECAR_LOG_LEVEL": "debug"}

    def __init__(self, folder: Path, seed: int, holder: int) -> None:
        super().__init__(folder, seed, is_apart=False)
        self.core_prefix = inside(holder)
        self.holder = holder

    def url(self, name: str) -> str:
        if name == "core":
            return f"ws://{HUB}:{self.hub_port}/client/hubs/sidecar"
        return super().url(name)


class Silence(Strikes):
    """The one fault that there is here."""

    def strike(self, fault: Fault) -> None:
        self._rule(DROP)

    async def mend(self, fault: Fault) -> None:
        await anyio.sleep(fault.time)
        self._rule(PASS)

    def _rule(self, text: str) -> None:
        assert isinstance(self._stage, SplitStage)
        subprocess.run([*inside(self._stage.holder), "nft", text], check=True)


def inside(pid: int) -> tuple[str, ...]:
    """What runs a program in the network of a process, and in nothing else of it."""
    return ("nsenter", "--target", str(pid), "--net")


@contextmanager
def two_networks() -> Iterator[int]:
    """We in one, the process that is yielded in the other. Raises `PermissionError`."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise PermissionError("no network namespace is to be had")
    holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            if holder.poll() is not None:
                raise PermissionError("no second network namespace is to be had")
        ip = ("ip", "link", "add", "hub", "type", "veth", "peer", "name", "core")
        _run(*ip, "netns", str(holder.pid))
        _set_up("hub", HUB)
        _set_up("core", CORE, inside(holder.pid))
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


def _set_up(device: str, address: str, prefix: tuple[str, ...] = ()) -> None:
    _run(*prefix, "ip", "address", "add", f"{address}/30", "dev", device)
    for name in (device, "lo"):
        _run(*prefix, "ip", "link", "set", name, "up")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


async def _play(folder: Path, seed: int, seconds: float, holder: int) -> Outcome:
    fault = Fault(Kind.PARTITION, Unit.CALLS, 7, "core", Way.UP, 0, seconds, 0, 0)
    stage = SplitStage(folder, seed, holder)
    watchdog = seconds + WATCHDOG
    evidence = await Conductor(stage, [fault], strikes=Silence, watchdog=watchdog).run()
    return Outcome(seed, evidence, judge(evidence), None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.partition", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        with two_networks() as holder, tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            play = (Path(folder), arguments.seed, arguments.seconds, holder)
            outcome = anyio.run(_play, *play)
    except (PermissionError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return EX_NOPERM
    report = Report(1, "none")
    report.add(outcome)
    report.conclude()
    show(outcome)
    print(report.table())
    return report.status


if __name__ == "__main__":
    sys.exit(main())
