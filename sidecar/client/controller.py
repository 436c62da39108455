"""A controller: one connection to the hub, and the runs it speaks to over it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from sidecar.allocator import tune_malloc
from sidecar.channel import Channel, ChannelStatus
from sidecar.client.attachment import RemoteAttachment
from sidecar.client.events import Cursor, EventStream
from sidecar.client.run import Run
from sidecar.clock import Clock, SystemClock
from sidecar.errors import CallError, ChannelError, Code, ProtocolError
from sidecar.protocol import envelope as wire
from sidecar.protocol.names import Scope, Subject, check_id
from sidecar.protocol.outbox import Outboxes
from sidecar.protocol.publish import Publish
from sidecar.protocol.webpubsub import codec_for
from sidecar.protocol.webpubsub.frames import JSON_SUBPROTOCOL, PROTOBUF_SUBPROTOCOL, Message
from sidecar.protocol.window import share
from sidecar.streaming import Sender
from sidecar.tokens import FixedToken, TokenProvider, parse_client_url

log = logging.getLogger(__name__)

GOODBYE = 1.0  # seconds for what is left to be sent when a controller closes


class Controller:
    """The platform's side of the channel. Made by `connect`.

    `controller` is its id (one DNS label), and must be the one in the token. The token comes
    from a provider, asked at every dial, or from a client URL with `access_token`.
    """

    def __init__(
        self,
        provider: TokenProvider,
        controller: str,
        *,
        scope: Scope,
        subprotocol: str,
        clock: Clock,
    ) -> None:
        self.id = check_id(controller, "controller id")
        self.clock = clock
        self._scope = scope
        self._outboxes = Outboxes()
        self._attachments: list[RemoteAttachment] = []
        self._group: TaskGroup | None = None
        self._channel = Channel(
            provider=provider,
            codec=codec_for(subprotocol),
            source=self,
            receiver=self,
            clock=clock,
        )

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        where: str | TokenProvider,
        *,
        controller: str,
        watch: bool = False,
        json: bool = False,
        allow_plain: bool = False,
        clock: Clock | None = None,
    ) -> AsyncIterator[Controller]:
        """A controller that dials, and dials again for as long as the block lasts.

        `watch`: the token allows to look and to change nothing (`controller_grant` with
        `Scope.WATCH`); commands that would change something are refused with `forbidden`.
        """
        tune_malloc()
        if isinstance(where, str):
            token = parse_client_url(where, allow_plain=allow_plain)
            where = FixedToken(token.url, token.value, allow_plain=allow_plain)
        subprotocol = JSON_SUBPROTOCOL if json else PROTOBUF_SUBPROTOCOL
        this = cls(
            where,
            controller,
            scope=Scope.WATCH if watch else Scope.FULL,
            subprotocol=subprotocol,
            clock=clock or SystemClock(),
        )
        failure: Exception | None = None
        async with anyio.create_task_group() as this._group:
            this._group.start_soon(this._channel.run)
            try:
                yield this
            except Exception as error:
                failure = error  # raised below, so that the task group does not wrap it
            finally:
                await this._close()
                this._group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def attach(self, run: str, *, timeout: float = 30.0) -> Run:
        """Attach to the sidecar of `run`. Raises `CallError`: `timeout` if none answers."""
        attachment = RemoteAttachment(
            Subject(run),
            self.id,
            Subject(run).inbound_group(self._scope),
            self._outboxes,
            clock=self.clock,
            wake=self._channel.wake,
            window=self._share,
        )
        self._attachments.append(attachment)
        attachment.begin()
        with anyio.move_on_after(timeout):
            await attachment.attached.wait()
            if attachment.refused is not None:
                self.detach(attachment)
                raise attachment.refused
            return Run(self, attachment)
        self.detach(attachment)
        status = self._channel.status()
        why = f"; the channel is {status.state}" + (f": {status.message}" if status.message else "")
        raise CallError(
            Code.TIMEOUT,
            f"no sidecar of run {run!r} answered in {timeout:g} s{why}",
            which="attach",
        )

    def events(self, run: str, *, after: Cursor, reader: str | None) -> EventStream:
        """See `Run.events`."""
        stream = EventStream(
            Subject(run),
            self.id,
            Subject(run).inbound_group(self._scope),
            self._outboxes,
            clock=self.clock,
            wake=self._channel.wake,
            window=self._share,
            after=after,
            reader=reader,
            on_close=self.detach,
        )
        self._attachments.append(stream)
        stream.begin()
        return stream

    def status(self) -> ChannelStatus:
        """How the connection is."""
        return self._channel.status()

    def detach(self, attachment: RemoteAttachment) -> None:
        """End an attachment. Harmless when repeated."""
        attachment.close()
        if attachment in self._attachments:
            self._attachments.remove(attachment)
            assert self._group is not None
            self._group.start_soon(self._drop_later, attachment)

    def start_sender(self, sender: Sender) -> None:
        assert self._group is not None
        self._group.start_soon(sender.run)

    def wake(self) -> None:
        self._channel.wake()

    async def _drop_later(self, attachment: RemoteAttachment) -> None:
        """Once `detach` is sent, or will not be."""
        with anyio.move_on_after(GOODBYE):
            await self._channel.drain(GOODBYE)
        attachment.drop()

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            for attachment in list(self._attachments):
                attachment.close()
            if self._attachments and self._channel.status().state == "open":
                await self._channel.drain(GOODBYE)

    def _share(self) -> tuple[int, int]:
        return share(len(self._attachments))

    # the channel's source and receiver ----------------------------------------------------

    def next_publish(self, *, now: float, urgent_only: bool) -> Publish | None:
        message = self._outboxes.next_message(now=now, urgent_only=urgent_only)
        return None if message is None else message.publish()

    def channel_opened(self, *, fresh: bool, now: float) -> None:
        if fresh:
            for attachment in self._attachments:
                attachment.begin()

    def channel_down(self, error: ChannelError, *, now: float) -> None:
        log.info("channel down (%s): %s", error.reason, error)

    def channel_message(self, message: Message, *, now: float) -> None:
        try:
            envelopes = wire.decode(message.data)
        except ProtocolError as error:
            log.warning("a message that cannot be read was dropped: %s", error)
            return
        first = envelopes[0]
        if isinstance(first, wire.Head):
            for attachment in list(self._attachments):
                answer = attachment.answer
                if answer is not None and answer.attachment == first.attachment:
                    attachment.receive_message(first, envelopes[1:], len(message.data))
            return
        for envelope in envelopes:
            self._loose(envelope, message.group or "")

    def _loose(self, envelope: wire.Any_, group: str) -> None:
        for attachment in list(self._attachments):
            match envelope:
                case wire.Attached():
                    attachment.receive_attached(envelope)
                case wire.Refused():
                    attachment.receive_refused(envelope)
                case wire.Hello():
                    if group == attachment.subject.hello_group:
                        attachment.receive_hello(envelope)


def new_controller_id() -> str:
    """An id for a controller that nobody has to remember."""
    return f"c-{secrets.token_hex(8)}"
