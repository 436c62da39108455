"""`sidecar health`: ask the sidecar of this sandbox how it is, over its local socket.

For HEALTHCHECK and probes, which start it every few seconds: no event loop, no click. It asks
`admin.sock`, and where that is not ours to ask, `agent.sock`.

Exit status: 0 healthy, 1 not, 2 there is no sidecar to ask, or a bad command line. With `--live`
there is no 1: whoever answers is alive, and a restart would bring back neither hub nor token.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from sidecar.cli.here import Nobody, ask_health, find_state
from sidecar.errors import SettingsError

HEALTHY = 0
UNHEALTHY = 1
NOBODY = 2

HELP = """\
Usage: sidecar health [--live] [--state DIR] [--json]

Is the sidecar of this sandbox well? It asks over the Unix socket in the state folder: the one
named with --state or SIDECAR_STATE, the one that SIDECAR_RUN stands for, or that of the
`sidecar dev` that runs.

Healthy is one whose channel to the hub is open. With --live it is enough that one answers: for
probes that restart it, which must not do so because the hub is away.

Examples:
  sidecar health                        one line
  sidecar health --live                 is it worth leaving alone?
  sidecar health --json | jq .channel   everything it knows
  HEALTHCHECK CMD ["sidecar", "health"]

Exit status: 0 healthy, 1 not (the line says why), 2 no sidecar answers. With --live: 0 or 2.
"""


def main(arguments: Sequence[str]) -> int:
    """The whole verb; `arguments` are those after `health`."""
    if "--help" in arguments or "-h" in arguments:
        print(HELP, end="")
        return HEALTHY
    try:
        options = _parse(arguments)
        answer = ask_health(find_state(options.state))
    except (Nobody, SettingsError) as error:
        print(f"sidecar health: {error}", file=sys.stderr)
        return NOBODY
    print(json.dumps(answer) if options.as_json else _describe(answer))
    return HEALTHY if answer.get("healthy") or options.live else UNHEALTHY


class _Options(NamedTuple):
    state: str | None = None
    as_json: bool = False
    live: bool = False


def _parse(arguments: Sequence[str]) -> _Options:
    found = _Options()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--json":
            found = found._replace(as_json=True)
        elif word == "--live":
            found = found._replace(live=True)
        elif word.startswith("--state="):
            found = found._replace(state=word.partition("=")[2])
        elif word == "--state" and rest:
            found = found._replace(state=rest.pop(0))
        else:
            raise SettingsError(f"{word!r} is out of place (see `sidecar health --help`)")
    return found


def _describe(answer: dict[str, Any]) -> str:
    channel = answer.get("channel", {})
    who = f"run {answer.get('run')}, sidecar {answer.get('version')}, process {answer.get('pid')}"
    rest = _describe_state(answer)
    rest += _describe_hands(answer.get("hands", {}))
    rest += _describe_token(answer.get("token", {}))
    rest += _describe_disk(answer.get("events", {}), answer.get("receipts", {}))
    if answer.get("healthy"):
        return f"healthy: {who}, channel open{rest}"
    why = ""
    if channel.get("reason") and channel.get("state") != "open":
        why = f", {channel['reason']}: {channel.get('message')}"
    return f"not healthy: {who}, channel {channel.get('state')}{why}{rest}"


def _describe_state(answer: dict[str, Any]) -> str:
    """Unless it simply runs. A token that is refused tells of itself."""
    match answer.get("state"):
        case "draining":
            waits = answer.get("waits_for", {})
            left = ", ".join(f"{count} {name}" for name, count in waits.items() if count)
            return f", draining{f' (waits for {left})' if left else ''}"
        case "superseded":
            return ", superseded: another sidecar of this run has taken over"
    return ""


def _describe_disk(events: dict[str, Any], receipts: dict[str, Any]) -> str:
    """It works on without its disk, and would lose what it has if it were killed now. Either may
    find room where the other does not."""
    reason = events.get("degraded")
    failing = ["events"] if reason else []
    failing += ["receipts"] if receipts.get("durable") is False else []
    if not failing:
        return ""
    return f", {' and '.join(failing)} in memory only ({reason or 'its log says why'})"


def _describe_hands(hands: dict[str, Any]) -> str:
    """Its absence is not ours to be restarted for, but for whoever looks."""
    if hands.get("state") != "away":
        return ""
    return f", hands away for {hands.get('since', 0.0):.0f} s ({hands.get('why')})"


def _describe_token(token: dict[str, Any]) -> str:
    """The work goes on without a good one, until the channel has to be dialled again."""
    if not token.get("failure"):
        return ""
    way_out = f"; {token['way_out']}" if token.get("way_out") else ""
    return f", token {token.get('state')}: {token['failure']}{way_out}"
