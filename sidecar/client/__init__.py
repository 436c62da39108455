"""The platform's side: speak to the sidecars of runs, async and typed.

async with Controller.connect(url, controller="me") as controller:
    run = await controller.attach("demo")
    await run.files.write("hello.txt", b"hello")
    print((await run.exec(["cat", "hello.txt"])).stdout)
    async for event in run.events():
        print(event)
"""

from __future__ import annotations

from sidecar.client.controller import Controller, new_controller_id
from sidecar.client.events import Cursor, Event, EventStream, Gap
from sidecar.client.exec import Completed, Process, ProgramFailed
from sidecar.client.files import Download, FileEntry, Files, Written
from sidecar.client.processes import Excerpt, ProcessInfo, RemoteProcess, Survivor
from sidecar.client.program import Limits, Options, Terminal
from sidecar.client.run import Run
from sidecar.client.shell import ShellResult, ShellSession
from sidecar.errors import CallError, Code, Retry, Started
from sidecar.tokens import CallableProvider, FixedToken, Token, TokenFile, TokenProvider

__all__ = [
    "CallableProvider",
    "CallError",
    "Code",
    "Completed",
    "Controller",
    "Cursor",
    "Download",
    "Event",
    "EventStream",
    "Excerpt",
    "FileEntry",
    "Files",
    "FixedToken",
    "Gap",
    "Limits",
    "new_controller_id",
    "Options",
    "Process",
    "ProcessInfo",
    "ProgramFailed",
    "RemoteProcess",
    "Retry",
    "Run",
    "ShellResult",
    "ShellSession",
    "Started",
    "Survivor",
    "Terminal",
    "Token",
    "TokenFile",
    "TokenProvider",
    "Written",
]
