"""What is said on standard error of how a program ended."""

from __future__ import annotations

import pytest

from sidecar.cli.ending import Outcome, exit_status
from sidecar.client import Completed


def test_output_that_was_dropped_or_lost_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    ended = Completed(3, None, b"", b"", 1.0, dropped={1: 5}, gaps={1: [70, 90], 2: [0]})
    assert exit_status(Outcome(completed=ended)) == 3
    said = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("sidecar: ") for line in said] == [
        "5 bytes of its stdout were not kept",
        "some bytes of its stdout were lost with a killed sidecar, at 70, 90",
        "some bytes of its stderr were lost with a killed sidecar, at 0",
    ]
