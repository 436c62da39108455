"""Who may speak: controllers attach, and an attachment lapses when they fall silent.

An attachment id is 16 random bytes that only this sidecar and that controller know, bound to
one incarnation: nothing can be forged with it, nothing stale is delivered by it, and of two
sidecars of one run only one is spoken to. The same nonce gets the same answer, because
`attach` is repeated until it is answered. Calls outlive their attachment; readers do not.

Who may only watch gets at most half of the places: watchers never keep out who may act.

Times are seconds. Nothing here makes ids or reads a clock: both are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.errors import CallError, Code, LimitExceeded
from sidecar.protocol import limits
from sidecar.protocol.envelope import Attach, Attached, Hello
from sidecar.protocol.limits import ATTACHMENT_SILENCE, ATTACHMENTS, READERS, WATCH_PART
from sidecar.protocol.names import Scope, Subject
from sidecar.protocol.outbox import Outbox
from sidecar.protocol.record import Record, record
from sidecar.protocol.window import SLACK, ReceiveWindow, SendWindow, share

VERSION = 1
DURABLE_RECEIPTS = "durable-receipts"  # feature: receipts outlive the process
LIMITS = {
    "calls": limits.OPEN_CALLS,
    "streams": limits.STREAMS,
    "credit": limits.STREAM_CREDIT,
    "event": limits.EVENT_BYTES,
    "answer": limits.ANSWER_BYTES,
}


@record
class Identity(Record):
    """Who this sidecar is, for `hello` and `attached`."""

    subject: Subject
    incarnation: bytes
    generation: int
    form: str
    trust: str

    def hello(self) -> Hello:
        """What it says on each new connection."""
        return Hello(
            self.subject.run,
            self.incarnation,
            self.generation,
            [VERSION],
            self.form,
            self.trust,
        )


@dataclass(slots=True, eq=False)
class Attachment:
    """A controller's unforgeable, passing identity, and what waits for it."""

    id: bytes
    controller: str
    scope: Scope
    outbox: Outbox
    inbound: ReceiveWindow
    answer: Attached
    heard: float
    reader: str | None = None  # name of a durable reader
    follows: bool = False  # it came with a cursor and is sent events


@record
class Origin(Record):
    """Where a call came from: an attachment, or REST with the group that gets the answer."""

    scope: Scope
    attachment: Attachment | None = None
    reply_group: str | None = None
    incarnation: bytes | None = None


@record
class Facts(Record):
    """What an `attached` says of this sidecar."""

    series: bytes
    incarnation: bytes
    generation: int
    first: int
    last: int
    limits: dict[str, int]
    features: tuple[str, ...] = ()


class Attachments:
    """All attachments of one sidecar."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._by_id: dict[bytes, Attachment] = {}
        self._by_nonce: dict[tuple[str, bytes], Attachment] = {}  # controller id, nonce

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[Attachment]:
        return list(self._by_id.values())

    def find(self, id: bytes) -> Attachment | None:
        return self._by_id.get(id)

    def known(self, request: Attach, *, now: float) -> Attachment | None:
        """The attachment that this very request got before: the same nonce, the same answer."""
        known = self._by_nonce.get((request.controller, request.nonce))
        if known is not None:
            known.heard = now
        return known

    def attach(
        self, request: Attach, scope: Scope, facts: Facts, *, new_id: bytes, now: float
    ) -> Attachment:
        """A new attachment. `new_id` is 16 random bytes. Raises `CallError`."""
        self._check(request, scope)
        window_bytes, window_messages = request.window
        granted = share(len(self._by_id) + 1)
        answer = Attached(
            nonce=request.nonce,
            attachment=new_id,
            series=facts.series,
            incarnation=facts.incarnation,
            generation=facts.generation,
            first=facts.first,
            last=facts.last,
            version=VERSION,
            window=list(granted),
            features=list(facts.features),
            limits=facts.limits,
        )
        attachment = Attachment(
            id=new_id,
            controller=request.controller,
            scope=scope,
            outbox=Outbox(
                self._subject.reply_group(request.controller),
                SendWindow(new_id, window_bytes, window_messages),
            ),
            inbound=ReceiveWindow(*granted, now=now),
            answer=answer,
            heard=now,
            reader=request.reader,
            follows=request.after is not None,
        )
        self._by_id[new_id] = attachment
        self._by_nonce[request.controller, request.nonce] = attachment
        self._share_out()
        return attachment

    def end(self, attachment: Attachment) -> None:
        """It detached, lapsed or overflowed. Harmless when repeated."""
        self._by_id.pop(attachment.id, None)
        self._by_nonce.pop((attachment.controller, attachment.answer.nonce), None)
        self._share_out()

    def lapsed(self, *, now: float) -> list[Attachment]:
        return [x for x in self._by_id.values() if now >= x.heard + ATTACHMENT_SILENCE]

    def next_deadline(self) -> float | None:
        """When the next one lapses or has a `window` to send."""
        times = [
            min(x.heard + ATTACHMENT_SILENCE, x.inbound.next_deadline())
            for x in self._by_id.values()
        ]
        return min(times, default=None)

    def _share_out(self) -> None:
        """What each may send shrinks as more attach: together they have one session on the hub.
        A grant cannot be taken back, so it takes effect as what was granted is used up."""
        for attachment in self._by_id.values():
            attachment.inbound.resize(*share(len(self._by_id)))

    def _check(self, request: Attach, scope: Scope) -> None:
        if VERSION not in request.versions:
            raise CallError(
                Code.UNSUPPORTED,
                f"versions {request.versions} offered, this sidecar speaks {VERSION}",
            )
        if len(request.window) != 2 or request.window[0] < SLACK or request.window[1] < 2:
            raise CallError(
                Code.INVALID,
                f"a window of {request.window}: at least {SLACK} bytes and 2 messages expected",
            )
        if request.reader is not None and scope is not Scope.FULL:
            raise CallError(
                Code.FORBIDDEN, f"durable reader {request.reader!r} through a watch-only group"
            )
        if len(self._by_id) >= ATTACHMENTS:
            raise LimitExceeded("attachments", size=len(self._by_id) + 1, limit=ATTACHMENTS)
        if scope is Scope.WATCH:
            self._check_watchers(follows=request.after is not None)

    def _check_watchers(self, *, follows: bool) -> None:
        watchers = [x for x in self._by_id.values() if x.scope is Scope.WATCH]
        _check_part("watch-only attachments", len(watchers), ATTACHMENTS)
        if follows:
            _check_part("watch-only readers", sum(x.follows for x in watchers), READERS)


def _check_part(what: str, count: int, whole: int) -> None:
    if count >= whole // WATCH_PART:
        raise LimitExceeded(what, size=count + 1, limit=whole // WATCH_PART)
