"""Programs: run one to its end, or start it and take part from anywhere, at any time.

run       exec.run: start to end in one call
watch     exec.attach, read, wait, list: what only looks
act       exec.start, input, resize, signal, kill: what acts
answers   what calls are told of a program
feeding   stream 0 into a program's input
orders    arguments of a call as what is to be started
resuming  programs of calls that an earlier core had begun
"""

from __future__ import annotations

from sidecar.context import Handler, Resumer
from sidecar.services.exec import act, run, watch

HANDLERS: dict[str, Handler] = {**run.HANDLERS, **act.HANDLERS, **watch.HANDLERS}
RESUMERS: dict[str, Resumer] = {**run.RESUMERS, **act.RESUMERS, **watch.RESUMERS}
