"""The count of what has left outlives the process, and is never begun anew unseen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.egressfile import EgressFile, open_count
from sidecar.statefolder import StateUnusable

KILLED = """
import os, signal, sys
from pathlib import Path
from sidecar.egressfile import EgressFile
file = EgressFile.open(Path(sys.argv[1]))
for spent in range(70_000):
    file.note(spent)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_count_begins_at_nothing_and_goes_on(tmp_path: Path) -> None:
    for before, after in ((0, 5), (5, 1 << 40), (1 << 40, 1 << 41)):
        file = EgressFile.open(tmp_path / "egress")
        assert file.spent == before
        file.note(after)
        file.close()


def test_a_count_survives_kill_9(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "egress")], check=False)
    assert done.returncode == -signal.SIGKILL
    file = EgressFile.open(tmp_path / "egress")
    assert file.spent == 69_999
    file.close()


def test_a_count_holds_no_descriptor_but_that_of_its_mapping(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    EgressFile.open(tmp_path / "egress").close()
    (tmp_path / "other").write_bytes(b"x" * 4096)
    with pytest.raises(ValueError):
        EgressFile.open(tmp_path / "other")
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_of_a_newer_sidecar_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "egress").write_bytes(b"egress\0\x02".ljust(4096, b"\xff"))
    for is_needed in (True, False):
        with pytest.raises(StateUnusable, match="format 2, and this sidecar knows 1"):
            open_count(tmp_path / "egress", is_needed=is_needed)


@pytest.mark.parametrize("content", [b"something else", b"egress\0\x01", b"\0" * 4096])
def test_what_cannot_be_gone_on_with_is_told_where_there_is_a_limit(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "egress").write_bytes(content)
    with pytest.raises(StateUnusable, match="limited by SIDECAR_EGRESS_RUN"):
        open_count(tmp_path / "egress", is_needed=True)
    assert open_count(tmp_path / "egress", is_needed=False) is None
    assert (tmp_path / "egress").read_bytes() == content


def test_a_place_that_cannot_be_written_is_told_where_there_is_a_limit(tmp_path: Path) -> None:
    (tmp_path / "egress").mkdir()
    with pytest.raises(StateUnusable, match="Is a directory"):
        open_count(tmp_path / "egress", is_needed=True)
    assert open_count(tmp_path / "egress", is_needed=False) is None
