"""`sidecar drain`: end the run of this sandbox's sidecar, and wait until all is delivered."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from sidecar.cli.here import Nobody, ask_health, ask_one, find_state, is_held, looking_at, read_note
from sidecar.cli.output import complain, show, show_json

NOBODY = 2
LEFT_OVER = 75
NO_CHANNEL = 69
LOOK = 0.2  # seconds between two looks
PATIENCE = 30.0  # seconds beyond the drain's own time until we stop looking

WAITED_FOR = ("calls", "events", "messages")


@click.command()
@click.option("--state", metavar="DIR", help="The state folder. Default: as `sidecar health`.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400),
    metavar="SECONDS",
    help="How long it may take. Default: the sidecar's SIDECAR_DRAIN.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the state at the end as JSON.")
def drain(state: str | None, timeout: float | None, as_json: bool) -> int:
    """End the run: the sidecar takes no new calls, lets open ones end while there is time, sends
    what is left until the hub and all durable readers have acknowledged it, and ends. It is not
    started again for this run.

    It asks over the Unix socket in the state folder, and needs no channel.

    \b
    Examples:
      sidecar drain                     wait as long as the sidecar is set to
      sidecar drain --timeout 300       give calls that run five minutes

    Exit status: 0 everything was delivered, 75 something was left over, 69 there was no channel,
    2 no sidecar answers.
    """
    try:
        folder = find_state(state)
        with looking_at(folder):
            note = _drain(folder, timeout)
    except Nobody as error:
        complain(str(error))
        return NOBODY
    if as_json:
        show_json(note)
    else:
        show(_describe(note))
    status = note.get("exit_status")
    return LEFT_OVER if status is None else int(status)


def _drain(folder: Path, timeout: float | None) -> dict[str, Any]:
    """The last state. Raises `Nobody`."""
    note = read_note(folder)
    if not is_held(folder) and note.get("state") == "ended":
        return note  # it had ended before
    pid = ask_health(folder).get("pid")
    request = {"op": "drain"} | ({} if timeout is None else {"timeout": timeout})
    try:
        answer = ask_one(folder / "admin.sock", request)
    except (OSError, ValueError) as error:
        note = read_note(folder)
        if note.get("pid") == pid and note.get("state") in ("draining", "ended"):
            return _watch(folder, pid, time.monotonic() + PATIENCE)  # it heard, and then it went
        raise Nobody(f"{folder / 'admin.sock'}: {error}") from None
    if "error" in answer:
        raise Nobody(str(answer.get("message")))
    return _watch(folder, pid, time.monotonic() + float(answer["time_left"]) + PATIENCE)


def _watch(folder: Path, pid: Any, until: float) -> dict[str, Any]:
    """Tell what is waited for whenever that changes, until the sidecar has noted its end. On a
    full disk the note may be that of an earlier one."""
    told = ""
    while time.monotonic() < until:
        note = read_note(folder)
        is_final = note.get("pid") == pid and note.get("exit_status") is not None
        if is_final:
            return note
        if not is_held(folder):
            return read_note(folder)  # written before the lock was given up, and after our look
        try:
            waits_for = ask_one(folder / "admin.sock", {"op": "health"}).get("waits_for", {})
        except (OSError, ValueError):
            waits_for = {}
        text = ", ".join(f"{waits_for[name]} {name}" for name in WAITED_FOR if waits_for.get(name))
        if text and text != told:
            complain(f"waiting for {text}")
            told = text
        time.sleep(LOOK)
    return read_note(folder)


def _describe(note: dict[str, Any]) -> str:
    if not note:
        return "the sidecar went, and so did its state folder: what was left over is unknown"
    if note.get("exit_status") is None:
        return f"run {note.get('run')}: the sidecar went while it was {note.get('state')}"
    left = note.get("left_over") or {}
    rest = ", ".join(f"{count} {name}" for name, count in left.items())
    why = f"; {note['why']}" if note.get("why") else ""
    end = f"left over: {rest}" if rest else "nothing left over"
    if not rest and note["exit_status"]:
        end = "what was to be said is left over"
    if note["exit_status"] == NO_CHANNEL:
        end = f"there was no channel, {end}"
    return f"run {note.get('run')} {note.get('state')}: {end}{why}"
