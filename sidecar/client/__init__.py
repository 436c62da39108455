"""The platform's side: speak to the sidecars of runs, async and typed.

async with Controller.connect(url, controller="me") as controller:
    run = await controller.attach("demo")
    await run.files.write("hello.txt", b"hello")
    print((await run.exec(["cat", "hello.txt"])).stdout)
    async for event in run.events():
        print(event)
"""

from __future__ import annotations

from sidecar.client.appending import Appended
from sidecar.client.archives import Archive, Archived, Extracted
from sidecar.client.controller import Controller, new_controller_id
from sidecar.client.copies import Copied
from sidecar.client.downloading import Downloaded
from sidecar.client.downloads import Download, ReadFile
from sidecar.client.editing import Edited, Replacement
from sidecar.client.events import Cursor, Event, EventStream, Gap
from sidecar.client.exec import Completed, Process, ProgramFailed
from sidecar.client.files import Files, Written
from sidecar.client.listing import FileEntry
from sidecar.client.processes import Excerpt, ProcessInfo, RemoteProcess, Survivor
from sidecar.client.program import Limits, Options, Terminal
from sidecar.client.run import Run
from sidecar.client.searching import Found, FoundLine
from sidecar.client.shell import ShellResult, ShellSession
from sidecar.client.trees import Teller, TreeCopied, TreeOptions
from sidecar.client.watch import Batch, Change, Watch
from sidecar.errors import CallError, Code, Retry, Started
from sidecar.tokens import CallableProvider, FixedToken, Token, TokenFile, TokenProvider

__all__ = [
    "Appended",
    "Archive",
    "Archived",
    "Batch",
    "CallableProvider",
    "CallError",
    "Change",
    "Code",
    "Completed",
    "Controller",
    "Copied",
    "Cursor",
    "Download",
    "Downloaded",
    "Edited",
    "Event",
    "EventStream",
    "Excerpt",
    "Extracted",
    "FileEntry",
    "Files",
    "FixedToken",
    "Found",
    "FoundLine",
    "Gap",
    "Limits",
    "new_controller_id",
    "Options",
    "Process",
    "ProcessInfo",
    "ProgramFailed",
    "ReadFile",
    "RemoteProcess",
    "Replacement",
    "Retry",
    "Run",
    "ShellResult",
    "ShellSession",
    "Started",
    "Survivor",
    "Teller",
    "Terminal",
    "Token",
    "TokenFile",
    "TokenProvider",
    "TreeCopied",
    "TreeOptions",
    "Watch",
    "Written",
]
