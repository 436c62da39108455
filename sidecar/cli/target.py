"""Which sidecar a verb speaks to, and how it gets there.

Either a `sidecar dev` of this machine, which hands out short-lived tokens over its Unix socket,
or any hub, by a token file (`--token-file`, with `--run` and `--controller`).
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import click

from sidecar.cli import loop
from sidecar.cli.loop import beside
from sidecar.cli.output import complain
from sidecar.errors import (
    ChannelError,
    NetworkFailure,
    NoToken,
    Replaced,
    SettingsError,
    TokenExpired,
    TokenRefused,
)

if TYPE_CHECKING:
    from sidecar.client import Controller, Run, Token, TokenProvider

ATTACH_TIME = 15.0  # seconds until a sidecar that does not answer is given up
LOOK = 0.1  # seconds between two looks at the channel
QUIET = 2.0  # seconds that the channel may be down before anybody is told
LOST = 60.0  # seconds that the channel may be down before a verb gives up
TRIES = 3  # failed dials after which a hub counts as out of reach at the start

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """What the options that every such verb has say."""

    run: str | None
    profile: str | None
    token_file: str | None
    controller: str | None
    watch: bool

    def said(self) -> str:
        """These options once more, for a command line that goes to the same sidecar."""
        options = {
            "--run": self.run,
            "--profile": self.profile,
            "--token-file": self.token_file,
            "--controller": self.controller,
        }
        return "".join(f"{name} {shlex.quote(text)} " for name, text in options.items() if text)


def target_options(verb: _F) -> _F:
    """Adds those options; the verb gets them as `target`."""

    def wrapped(**values: Any) -> Any:
        names = ("run", "profile", "token_file", "controller", "watch")
        return verb(target=Target(**{name: values.pop(name) for name in names}), **values)

    wrapped.__doc__ = verb.__doc__
    wrapped.__name__ = verb.__name__
    for option in (
        click.option("--watch", is_flag=True, help="Look, and be unable to change anything."),
        click.option("--controller", metavar="ID", help="Who we are, as --token-file says."),
        click.option("--token-file", metavar="FILE", help="A controller's token, for any hub."),
        click.option(
            "--profile", metavar="FILE", envvar="SIDECAR_PROFILE", help="The dev's profile file."
        ),
        click.option(
            "--run", metavar="ID", envvar="SIDECAR_RUN", help="Which run. Default: the only one."
        ),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


@asynccontextmanager
async def attached(target: Target) -> AsyncIterator[Run]:
    """The run, attached. Raises `ChannelError`, `CallError`, `SettingsError`; while the block
    runs, a lost channel is announced and mended, or given up after a minute."""
    from sidecar.client import Controller

    provider, run, controller_id = _resolve(target)
    connection = Controller.connect(provider, controller=controller_id, watch=target.watch)
    async with connection as controller:
        async with beside(partial(_reach, controller)):
            found = await controller.attach(run, timeout=ATTACH_TIME)
        async with beside(partial(_stay, controller)):
            yield found


def on_run(target: Target, verb: Callable[[Run], Awaitable[int | None]]) -> int:
    """Do `verb` on the run; the exit status."""

    async def main() -> int | None:
        async with attached(target) as run:
            return await verb(run)

    return loop.run(main)


def _resolve(target: Target) -> tuple[TokenProvider, str, str]:
    from sidecar.cli import profiles
    from sidecar.client import CallableProvider, TokenFile, new_controller_id

    if target.token_file:
        if not target.run or not target.controller:
            raise SettingsError("--token-file needs --run ID and --controller ID beside it")
        if not Path(target.token_file).is_file():
            raise SettingsError(f"{target.token_file}: no such token file")
        return TokenFile(target.token_file), target.run, target.controller
    profile = profiles.find(target.run, target.profile)
    controller = target.controller or new_controller_id()

    async def ask_dev() -> Token:
        return await token_from(profile.socket, controller=controller, watch=target.watch)

    return CallableProvider(ask_dev), profile.run, controller


async def token_from(socket: str, **request: object) -> Token:
    """A token from a `sidecar dev`. Raises `NoToken` if it is gone."""
    from sidecar.client import Token
    from sidecar.localsocket import ask

    try:
        answer = await ask(Path(socket), {"op": "token", **request})
    except (OSError, TimeoutError):
        raise NoToken("the `sidecar dev` that hands out tokens is gone") from None
    if "error" in answer:
        raise SettingsError(answer["message"])
    return Token(answer["url"], answer["token"], answer["expires_at"])


# Watching the channel beside what a verb does -------------------------------------------------


async def _reach(controller: Controller, _: anyio.CancelScope) -> None:
    """At the start whoever called is there and can mend it: a refusal is final."""
    while True:
        status = controller.status()
        if status.reason and status.state != "open":
            is_final = status.reason in ("expired", "refused", "no_token")
            if is_final or status.attempts >= TRIES:
                raise _error(status.reason, status.message)
        await anyio.sleep(LOOK)


async def _stay(controller: Controller, _: anyio.CancelScope) -> None:
    """Later, a drop is a pause: say so, and go on."""
    down = 0.0
    while True:
        await anyio.sleep(LOOK)
        status = controller.status()
        if status.state == "open":
            if down >= QUIET:
                complain("connected again")
            down = 0.0
            continue
        down += LOOK
        if down >= LOST or (status.reason == "no_token" and down >= QUIET):
            raise _error(status.reason or "network", status.message)
        if down - LOOK < QUIET <= down:
            complain(f"connection lost ({status.reason}): {status.message}; trying again")


def _error(reason: str, message: str | None) -> ChannelError:
    """The error that the channel's status tells of."""
    kinds: tuple[type[ChannelError], ...] = (TokenExpired, TokenRefused, NoToken, Replaced)
    for kind in kinds:
        if kind.reason == reason:
            return kind(message)
    return NetworkFailure(message)
