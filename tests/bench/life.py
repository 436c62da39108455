"""A sidecar that starts, and one that does nothing, against a bare client of the hub."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import Popen

import anyio
from websockets.asyncio.client import ClientConnection

from sidecar.protocol.names import Grant, Subject, sidecar_grant
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import PROTOBUF_SUBPROTOCOL, Message, SequenceAck
from tests.bench.measure import MIB, Scale, interleave, ms, ratio, status, wake_ups
from tests.bench.pump import connected
from tests.bench.report import Row, at_most
from tests.bench.stage import (
    PATIENCE,
    SIDECAR,
    HubAt,
    hub_process,
    process,
    sidecar_environment,
)

RUN = Subject("life")
WATCHER = Grant("watcher", (RUN.hello_group,), ())
SETTLED = 2.0  # seconds after which a start is over


class Ear:
    """Hears the first message that a process which was started publishes."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._codec = codec_for(PROTOBUF_SUBPROTOCOL)

    async def hear(self) -> None:
        with anyio.fail_after(PATIENCE):
            while True:
                frame = self._codec.decode_downstream(await self._socket.recv())
                if isinstance(frame, Message):
                    ack = SequenceAck(frame.sequence_id or 0)
                    await self._socket.send(self._codec.encode_upstream(ack))
                    return


@asynccontextmanager
async def listening(hub: HubAt) -> AsyncIterator[Ear]:
    async with connected(hub.client_url(WATCHER), codec_for(PROTOBUF_SUBPROTOCOL)) as socket:
        yield Ear(socket)


@contextmanager
def started_sidecar(hub: HubAt) -> Iterator[Popen[str]]:
    """As it starts in a sandbox: its token in a file."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        environment = sidecar_environment(hub, Path(name), RUN.run, "protobuf")
        token = Path(name) / "token"
        token.write_text(environment.pop("SIDECAR_TOKEN"))
        token.chmod(0o600)
        environment["SIDECAR_TOKEN_FILE"] = str(token)
        with process(*SIDECAR, environment=environment) as child:
            yield child


def _bare(hub: HubAt) -> AbstractContextManager[Popen[str]]:
    url = hub.client_url(sidecar_grant(RUN.run))
    return process("-m", "tests.bench.bareclient", url, RUN.hello_group)


async def start(scale: Scale) -> list[Row]:
    """From the start of the process to its first message, heard on the other side of the hub."""
    async with hub_process() as hub, listening(hub) as ear:

        async def sidecar() -> float:
            began = time.perf_counter()
            with started_sidecar(hub):
                await ear.hear()
                return time.perf_counter() - began

        async def bare() -> float:
            began = time.perf_counter()
            with _bare(hub):
                await ear.hear()
                return time.perf_counter() - began

        await sidecar()  # compiles what was not compiled
        await bare()
        found = await interleave(scale.starts, {"sidecar": sidecar, "bare client": bare})
    behind = {name: ms(values) for name, values in found.items()}
    value = ratio(found["sidecar"], found["bare client"])
    what = "start of the process to hello / a bare client's first message"
    return [Row("start", what, value, at_most(1.35), sides=behind, rounds=scale.starts)]


async def idle(scale: Scale) -> list[Row]:
    """Memory and wake-ups of a sidecar that nobody is attached to."""
    async with hub_process() as hub, listening(hub) as ear:
        with started_sidecar(hub) as sidecar:
            await ear.hear()
            with _bare(hub) as bare:
                await ear.hear()
                await anyio.sleep(min(SETTLED, scale.idle))
                before = wake_ups(sidecar.pid), wake_ups(bare.pid)
                await anyio.sleep(scale.idle)
                after = wake_ups(sidecar.pid), wake_ups(bare.pid)
                ours, theirs = (status(child.pid, "VmRSS") for child in (sidecar, bare))
    rates = [(b - a) / scale.idle for a, b in zip(before, after, strict=True)]
    behind = {"sidecar": f"{ours / MIB:.1f} MiB", "bare client": f"{theirs / MIB:.1f} MiB"}
    return [
        Row("idle", "resident memory / a bare client", ours / theirs, at_most(1.5), sides=behind),
        Row(
            "idle",
            "wake-ups a second",
            rates[0],
            at_most(0.2),
            "/s",
            sides={"bare client": f"{rates[1]:.2f} /s"},
        ),
    ]
