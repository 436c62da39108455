"""What calls are told of a program: how it ended, and its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.callrunner import INLINE_BYTES
from sidecar.egress import CallEgress
from sidecar.errors import CallError, Code, Started
from sidecar.processes.output import Output
from sidecar.processes.process import Process
from sidecar.processes.record import Ended, describe
from sidecar.processes.source import SpoolSource
from sidecar.protocol.streams import STDERR, STDOUT

SMALL = (INLINE_BYTES - 2048) // 2  # output of one kind that stands in the result
NAMES = {STDOUT: "stdout", STDERR: "stderr"}


def of_end(process: Process, ended: Ended) -> dict[str, Any]:
    """Status or signal, how long it took, and which timeout ended it, if one did."""
    found = {**describe(ended), **of_start(process), "duration": ended.duration}
    return found if ended.which is None else found | {"which": ended.which}


def of_start(process: Process) -> dict[str, Any]:
    """Who it is; of one that ran before we did, what it printed then is unknown."""
    found = {"pid": process.pid}
    return found | {"before": "unknown"} if process.is_adopted else found


def of_outputs(process: Process, sources: Mapping[int, SpoolSource]) -> dict[str, Any]:
    """Size and loss of each output: to its reader, if it is sent as a stream."""
    return {NAMES[n]: output.describe(sources.get(n)) for n, output in process.outputs.items()}


async def with_data(output: Output, egress: CallEgress) -> tuple[dict[str, Any], CallError | None]:
    """An output that nobody is sent: its bytes stand in the answer. Or why they do not: they are
    too many for it, or may not leave."""
    found = output.describe()
    size = found["size"]
    if size > SMALL:
        return found, _too_much()
    try:
        egress.take(size)
    except CallError as error:
        return found, error
    found["data"] = (await output.spool.read(0, size)).data if size else b""
    return found, None


def enforce(
    process: Process, ended: Ended, answer: dict[str, Any], lacking: CallError | None = None
) -> dict[str, Any]:
    """`answer`, if the program came to an end of its own that was observed, and nothing is
    `lacking` in the answer. Else raises the error that says so, with the answer in its details."""
    if ended.exit is None:
        error = process.unknown()
        error.details.update(answer)
        raise error
    if process.is_stopped:
        why = "the sidecar was told to end, and this program had to end with it"
        raise CallError(Code.CANCELLED, why, started=Started.YES, **answer)
    if ended.which is not None:
        raise CallError(Code.TIMEOUT, _too_long(process, ended), started=Started.YES, **answer)
    if lacking is not None:
        lacking.started = Started.YES
        lacking.details.update(answer)
        raise lacking
    return answer


def _too_much() -> CallError:
    return CallError(
        Code.NEEDS_ATTACHMENT,
        f"it printed more than the {SMALL} bytes that a result holds: attach, and read them by its"
        " exec id",
    )


def _too_long(process: Process, ended: Ended) -> str:
    if ended.which == "total":
        return f"the program ran longer than {process.spec.timeout:g} s and was killed"
    return f"the program neither read nor wrote for {process.spec.idle_timeout:g} s and was killed"
