"""Programs that outlive the core that asked for them.

Core may be restarted while programs run. Hands keeps a descriptor of each of their pipes, so
that no program sees an end that nobody meant, and gives copies to the next core (`take`):
standard input until `end_input`, the others until `forget`. How a program ended stays with
`LocalHands` until then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import anyio

from sidecar.errors import CallError, Code, from_os_error
from sidecar.hands.apart.asking import STREAMS
from sidecar.hands.apart.relay import Relay
from sidecar.hands.interface import Exit, Program, Running
from sidecar.hands.local.hands import LocalHands

PRUNE = 64  # programs more than last time, until we look which of them hands has forgotten


@dataclass(slots=True, eq=False)
class Kept:
    """One program, and our copies of what core has of it."""

    pid: int
    start_time: int
    descriptors: dict[str, int] = field(default_factory=dict)
    relay: Relay | None = None

    def close(self, *names: str) -> None:
        for name in names:
            if name in self.descriptors:
                os.close(self.descriptors.pop(name))

    def drop(self) -> None:
        self.close(*STREAMS)
        if self.relay is not None:
            self.relay.close()


class Keeper:
    """The programs of one hands, across connections."""

    def __init__(self, hands: LocalHands) -> None:
        self._hands = hands
        self._kept: dict[bytes, Kept] = {}
        self._starting: dict[bytes, anyio.Event] = {}
        self._prune_at = PRUNE

    async def spawn(self, program: Program, key: bytes) -> Kept:
        """Start a program. The descriptors of what is returned stay ours to close."""
        while (starting := self._starting.get(key)) is not None:
            await starting.wait()  # it may have been cancelled, and then the key is free again
        started = self._starting[key] = anyio.Event()
        try:
            if len(self._kept) >= self._prune_at:
                await self._prune()
            if program.terminal is None:
                running, relay = await self._hands.spawn(program, key=key), None
            else:
                running, relay = await self._spawn_with_relay(program, key)
            # Nothing is awaited from here on: a program that runs is one that is kept.
            kept = self._kept[key] = _keep(running, relay)
        finally:
            del self._starting[key]
            started.set()
        return kept

    async def _spawn_with_relay(self, program: Program, key: bytes) -> tuple[Running, Relay]:
        try:
            relay = Relay()
        except OSError as error:
            raise from_os_error(error, "terminal") from None
        try:
            return await self._hands.spawn(program, key=key), relay
        except BaseException:
            relay.cancel()
            raise

    async def take(self, key: bytes) -> Kept:
        """A program once more. One that is just being started is waited for: a core whose
        connection was lost meanwhile asks whether it was."""
        if (starting := self._starting.get(key)) is not None:
            await starting.wait()
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        if any(known.key == key for known in await self._hands.known()):
            raise CallError(
                Code.UNSUPPORTED, "the descriptors of this program went with an earlier hands"
            )
        raise CallError(Code.NOT_FOUND, "no program of this key is known")

    async def end_input(self, key: bytes) -> None:
        kept = self._kept.get(key)
        if kept is not None and kept.relay is None:  # a terminal has no end of input
            kept.close("stdin")
        await self._hands.end_input(key)

    async def wait(self, key: bytes) -> Exit:
        ended = await self._hands.wait(key)
        kept = self._kept.get(key)
        if kept is not None and kept.relay is not None:
            kept.relay.flush()
        return ended

    async def forget(self, key: bytes) -> None:
        await self._hands.forget(key)
        self._drop(key)

    def close(self) -> None:
        """All copies are closed; the programs see the end of their pipes."""
        for key in list(self._kept):
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            kept.drop()

    async def _prune(self) -> None:
        """Hands forgets the oldest that ended; so do we."""
        known = {program.key for program in await self._hands.known()}
        for key in self._kept.keys() - known:
            self._drop(key)
        self._prune_at = len(self._kept) + PRUNE


def _keep(running: Running, relay: Relay | None) -> Kept:
    descriptors = {
        name: descriptor for name in STREAMS if (descriptor := getattr(running, name)) is not None
    }
    if relay is not None:
        relay.begin(descriptors["stdout"], descriptors["stdin"])
        descriptors |= {"stdout": relay.output, "stdin": relay.input}
    return Kept(running.pid, running.start_time, descriptors, relay)
