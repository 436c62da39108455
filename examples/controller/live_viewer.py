"""Look at a run as it goes: its programs, what they print, and its events.

    export CLIENT_URL=$(sidecar token --controller viewer --watch --lifetime 86400)
    python examples/controller/live_viewer.py RUN

CLIENT_URL is the hub's client URL with an access token for the controller `viewer`, which may
look and change nothing. A terminal shows all of it at once and is kept up to date; elsewhere each
event and each line is printed once. A lost connection is told, and the view goes on behind it.
Ctrl-C ends it, and no program notices.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sidecar.client import CallError, Controller, Cursor, Event, ProcessInfo, Run

FOLLOWED = 32  # programs whose output is read at the same time
TAIL = 2000  # bytes of what a program had printed before we came
EARLIER = 5  # events from before we came
LINE = 500  # characters at most of a line whose end has not come
FRAME = 0.2  # seconds
INTERRUPTED = 130


class Page:
    """What is shown: drawn anew on a terminal, elsewhere line by line as it comes."""

    def __init__(self, controller: Controller, run: Run) -> None:
        self._controller, self._run = controller, run
        self._console = Console(highlight=False)
        self._is_drawn = self._console.is_terminal
        self._programs: list[ProcessInfo] = []
        self._listed_at = 0.0
        self._events: deque[str] = deque(maxlen=8)
        self._output: deque[str] = deque(maxlen=200)

    def list(self, programs: list[ProcessInfo]) -> None:
        self._programs, self._listed_at = programs, time.monotonic()

    def tell_event(self, line: str) -> None:
        self._add(self._events, line)

    def tell_output(self, line: str) -> None:
        self._add(self._output, line)

    def _add(self, lines: deque[str], line: str) -> None:
        lines.append(printable(line))
        if not self._is_drawn:
            print(lines[-1], flush=True)

    async def keep(self) -> None:
        """Until it is cancelled, which leaves the last of it on the terminal."""
        if not self._is_drawn:
            return await self._tell_of_channel()
        with Live(console=self._console, auto_refresh=False) as live:
            while True:
                live.update(self._view(), refresh=True)
                await anyio.sleep(FRAME)

    async def _tell_of_channel(self) -> None:
        told = ""
        while True:
            if told != (told := self._channel()):
                print(told, flush=True)
            await anyio.sleep(FRAME)

    def _channel(self) -> str:
        status = self._controller.status()
        why = f": {status.message}" if status.message and status.state != "open" else ""
        return printable(f"run {self._run.id}, channel {status.state}{why}")

    def _view(self) -> Group:
        """As much as fits: the latest programs and events, and between them the latest lines."""
        table = Table("pid", "age", "state", "program", box=None, pad_edge=False)
        since = time.monotonic() - self._listed_at
        for info in self._programs[-6:]:
            row = (str(info.pid), f"{info.age + since:.0f} s", state(info), command(info))
            table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
        room = max(1, self._console.height - table.row_count - len(self._events) - 3)
        output, events = list(self._output)[-room:], list(self._events)
        return Group(
            Text(self._channel(), style="bold", no_wrap=True, overflow="ellipsis"),
            table,
            *(Text(line, no_wrap=True, overflow="ellipsis") for line in output),
            *(Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in events),
        )


class Viewer:
    """The tasks that learn what there is to show."""

    def __init__(self, run: Run, page: Page) -> None:
        self._run, self._page = run, page
        self._known: set[bytes] = set()  # programs whose output is or was read
        self._reading = 0
        self._changed = anyio.Event()

    async def keep(self, follow: Callable[..., Awaitable[None]], *arguments: TaskGroup) -> None:
        """Until it is cancelled; anew when the sidecar was away for so long that a call failed."""
        while True:
            try:
                await follow(*arguments)
            except CallError as error:
                self._page.tell_event(f"asking again: {error}")
                await anyio.sleep(1)

    async def follow_events(self) -> None:
        last = (await self._run.info())["events"]["last"]
        async with self._run.events(Cursor(seq=max(0, last - EARLIER))) as events:
            async for item in events:
                if isinstance(item, Event):
                    clock = time.strftime("%H:%M:%S", time.localtime(item.time))
                    self._page.tell_event(f"{clock} {item.seq} {item.name} {item.data or ''}")
                else:
                    self._page.tell_event(f"events {item.first} to {item.last or '?'}: gone")
                self._changed.set()

    async def follow_programs(self, group: TaskGroup) -> None:
        """List them whenever something happened, and read what new ones print."""
        self._known = {info.id for info in await self._run.processes() if not info.is_alive}
        while True:
            self._changed = anyio.Event()
            programs = await self._run.processes()
            self._page.list(programs)
            self._known &= {info.id for info in programs}  # the others are forgotten there, too
            for info in programs:
                if info.id not in self._known and self._reading < FOLLOWED:
                    self._known.add(info.id)
                    self._reading += 1
                    group.start_soon(self._read, info)
            await self._changed.wait()

    async def _read(self, info: ProcessInfo) -> None:
        begun = {1: "", 2: ""}  # by output, the line whose end has not come
        start = {n: max(0, info.sizes.get(n, 0) - TAIL) for n in begun}
        remote = await self._run.find(info.id)
        try:
            async with remote.attach(stdout=start[1], stderr=start[2]) as process:
                async for n, chunk in process.output():
                    text = begun[n] + chunk.decode(errors="replace")
                    *lines, begun[n] = text[-LINE - len(chunk) :].split("\n")
                    for line in lines:
                        self._page.tell_output(f"{info.pid}| {line}")
        except CallError as error:
            self._page.tell_output(f"{info.pid}| {error}")
        for line in filter(None, begun.values()):
            self._page.tell_output(f"{info.pid}| {line}")
        self._reading -= 1
        self._changed.set()


def printable(line: str) -> str:
    """What comes from a sandbox may hold escape sequences, which would act on our terminal."""
    return "".join(char if char.isprintable() else " " for char in line).rstrip()


def state(info: ProcessInfo) -> str:
    if info.state != "ended":
        return info.state
    return f"ended {info.status}" if info.signal is None else f"signal {info.signal}"


def command(info: ProcessInfo) -> str:
    words = [word if isinstance(word, str) else repr(word) for word in info.argv]
    return printable(info.shell or " ".join(words) or "?")


async def main(run_id: str) -> None:
    url = os.environ["CLIENT_URL"]
    async with Controller.connect(url, controller="viewer", watch=True) as controller:
        run = await controller.attach(run_id)
        page = Page(controller, run)
        viewer = Viewer(run, page)
        async with anyio.create_task_group() as group:
            group.start_soon(page.keep)
            group.start_soon(viewer.keep, viewer.follow_events)
            group.start_soon(viewer.keep, viewer.follow_programs, group)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: CLIENT_URL=... {sys.argv[0]} RUN")
    try:
        anyio.run(main, sys.argv[1])
    except CallError as error:  # nobody answered
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
