"""Plays seeds, each in a folder of its own, with a small file system for the state if it may."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.conductor import FINISH, Conductor, Evidence
from tests.chaos.faults import Kind, plan
from tests.chaos.judge import Verdict, judge
from tests.chaos.stage import Stage

CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_REC, MS_PRIVATE = 16384, 1 << 18  # linux/mount.h
SOON = 12.0  # seconds after which a seed with a defect has hung: it will, and nobody need wait
STATE_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Outcome:
    """One seed, played and judged."""

    seed: int
    evidence: Evidence
    verdict: Verdict
    kept: Path | None


class Season:
    """What all seeds of one run have in common."""

    def __init__(self, rounds: int, defect: str, kinds: Sequence[Kind], keep: bool) -> None:
        self._rounds = rounds
        self._defect = defect
        self._keep = keep
        self._can_mount = own_mounts()
        self.kinds = [kind for kind in kinds if kind is not Kind.DISK or self._can_mount]

    async def play(self, seed: int) -> Outcome:
        faults = plan(seed, self._rounds, self.kinds)
        needs_hands = any(fault.kind in (Kind.HANDS, Kind.BOTH) for fault in faults)
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
        stage = Stage(folder, seed, is_apart=needs_hands or seed % 3 != 0, defect=self._defect)
        if self._can_mount:
            _mount(folder / "state")
        patience = FINISH if self._defect == "none" else SOON
        evidence = await Conductor(stage, faults, patience=patience).run()
        verdict = judge(evidence)
        keep = self._keep or bool(verdict.violations and self._defect == "none")
        self._tidy(folder, keep)
        return Outcome(seed, evidence, verdict, folder if keep else None)

    def _tidy(self, folder: Path, keep: bool) -> None:
        if self._can_mount:
            if keep:
                shutil.copytree(folder / "state", folder / "state-kept", ignore=_sockets)
            subprocess.run(["umount", "--lazy", folder / "state"], check=True)
        if not keep:
            shutil.rmtree(folder)


def own_mounts() -> bool:
    """A mount namespace of our own (unshare(2)), so that no mount outlives us."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getuid() != 0 or libc.unshare(CLONE_NEWNS) != 0:
        return False
    return bool(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0)


def _mount(path: Path) -> None:
    path.mkdir(mode=0o700)
    options = f"size={STATE_BYTES},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not Path(folder, name).is_file() and name.endswith(".sock")]
