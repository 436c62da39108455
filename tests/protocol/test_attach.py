"""Who may speak: nonces, scopes, windows that are shared, and silence."""

from __future__ import annotations

import pytest

from sidecar.errors import CallError, Code
from sidecar.protocol.attach import Attachment, Attachments, Facts
from sidecar.protocol.envelope import Attach, Attached, Head
from sidecar.protocol.limits import ATTACHMENTS
from sidecar.protocol.names import Scope, Subject

FACTS = Facts(b"s" * 16, b"i" * 16, 3, 1, 9, {"calls": 256}, ("x",))


def request(nonce: int = 0, controller: str = "c1", **changes: object) -> Attach:
    known: dict[str, object] = {"versions": [1], "window": [1 << 20, 64], **changes}
    return Attach(controller, nonce.to_bytes(16, "big"), **known)  # type: ignore[arg-type]


def attach(
    attachments: Attachments, asked: Attach, *, scope: Scope = Scope.FULL, now: float = 0.0
) -> Attachment:
    return attachments.attach(asked, scope, FACTS, new_id=asked.nonce[::-1], now=now)


def test_the_answer_says_who_the_sidecar_is_and_what_may_be_sent() -> None:
    attachment = attach(Attachments(Subject("r1")), request(7))
    assert attachment.answer == Attached(
        nonce=(7).to_bytes(16, "big"),
        attachment=(7).to_bytes(16, "little"),
        series=b"s" * 16,
        incarnation=b"i" * 16,
        generation=3,
        first=1,
        last=9,
        version=1,
        window=[4 << 20, 128],
        features=["x"],
        limits={"calls": 256},
    )
    assert attachment.outbox.group == "out.r1.c1"
    assert attachment.outbox.window.room() == 1 << 20


def test_the_same_nonce_gets_the_same_attachment() -> None:
    attachments = Attachments(Subject("r1"))
    assert attachments.known(request(1), now=0.0) is None
    first = attach(attachments, request(1))
    assert attachments.known(request(1), now=50.0) is first
    assert first.heard == 50.0
    assert attachments.known(request(2), now=50.0) is None


def test_the_nonce_of_another_controller_is_another_nonce() -> None:
    attachments = Attachments(Subject("r1"))
    first = attach(attachments, request(1, "c1"))
    assert attachments.known(request(1, "c2"), now=0.0) is None
    second = attachments.attach(request(1, "c2"), Scope.FULL, FACTS, new_id=b"2" * 16, now=0.0)
    attachments.end(second)
    assert attachments.known(request(1, "c1"), now=0.0) is first


def test_an_attachment_is_found_by_its_id_until_it_ends() -> None:
    attachments = Attachments(Subject("r1"))
    attachment = attach(attachments, request(1))
    assert attachments.find(attachment.id) is attachment
    attachments.end(attachment)
    attachments.end(attachment)  # harmless
    assert attachments.find(attachment.id) is None
    assert attachments.known(request(1), now=0.0) is None
    assert len(attachments) == 0


@pytest.mark.parametrize(
    "asked, code",
    [
        pytest.param(request(versions=[2, 3]), Code.UNSUPPORTED, id="version"),
        pytest.param(request(versions=[]), Code.UNSUPPORTED, id="no-version"),
        pytest.param(request(window=[1 << 20]), Code.INVALID, id="one-number"),
        pytest.param(request(window=[(1 << 19) - 1, 64]), Code.INVALID, id="too-few-bytes"),
        pytest.param(request(window=[1 << 20, 1]), Code.INVALID, id="too-few-messages"),
        pytest.param(request(controller="a.b"), Code.INVALID, id="controller"),
    ],
)
def test_what_cannot_be_had_is_refused(asked: Attach, code: Code) -> None:
    attachments = Attachments(Subject("r1"))
    with pytest.raises(CallError) as caught:
        attach(attachments, asked)
    assert caught.value.code is code
    assert len(attachments) == 0


def test_one_of_several_versions_is_enough() -> None:
    assert attach(Attachments(Subject("r1")), request(versions=[9, 1])).answer.version == 1


def test_a_watcher_is_no_durable_reader() -> None:
    attachments = Attachments(Subject("r1"))
    asked = request(reader="platform", after=0)
    with pytest.raises(CallError, match="durable reader 'platform' through a watch-only group"):
        attach(attachments, asked, scope=Scope.WATCH)
    assert attach(attachments, asked).reader == "platform"


def test_attachments_are_bounded() -> None:
    attachments = Attachments(Subject("r1"))
    for n in range(ATTACHMENTS):
        attach(attachments, request(n))
    with pytest.raises(CallError, match="attachments: 31, at most 30 allowed"):
        attach(attachments, request(99))


def test_watchers_get_half_of_the_places_and_leave_the_others() -> None:
    attachments = Attachments(Subject("r1"))
    first = attach(attachments, request(0), scope=Scope.WATCH)
    for n in range(1, 15):
        attach(attachments, request(n), scope=Scope.WATCH)
    with pytest.raises(CallError, match="watch-only attachments: 16, at most 15 allowed"):
        attach(attachments, request(99), scope=Scope.WATCH)
    for n in range(15, 30):
        attach(attachments, request(n))
    attachments.end(first)
    assert attach(attachments, request(99), scope=Scope.WATCH).scope is Scope.WATCH


def test_watchers_get_half_of_the_readers_places() -> None:
    attachments = Attachments(Subject("r1"))
    for n in range(8):
        attach(attachments, request(n, after=0), scope=Scope.WATCH)
    with pytest.raises(CallError, match="watch-only readers: 9, at most 8 allowed"):
        attach(attachments, request(99, after=0), scope=Scope.WATCH)
    attach(attachments, request(98), scope=Scope.WATCH)
    assert attach(attachments, request(99, after=0)).follows


def test_the_windows_shrink_as_more_attach_and_grow_as_they_end() -> None:
    attachments = Attachments(Subject("r1"))
    first, *others = [attach(attachments, request(n)) for n in range(4)]
    assert (first.inbound.size_bytes, first.inbound.size_messages) == (2 << 20, 125)
    assert others[-1].answer.window == [2 << 20, 125]
    for attachment in others:
        attachments.end(attachment)
    assert (first.inbound.size_bytes, first.inbound.size_messages) == (4 << 20, 128)


def test_attachments_lapse_after_90_s_of_silence() -> None:
    attachments = Attachments(Subject("r1"))
    silent = attach(attachments, request(1), now=0.0)
    heard = attach(attachments, request(2), now=0.0)
    heard.heard = 60.0
    assert attachments.lapsed(now=89.9) == []
    assert attachments.lapsed(now=90.0) == [silent]
    assert attachments.lapsed(now=150.0) == [silent, heard]


def test_the_next_deadline_is_a_window_or_a_lapse() -> None:
    attachments = Attachments(Subject("r1"))
    assert attachments.next_deadline() is None
    attachment = attach(attachments, request(1), now=0.0)
    assert attachments.next_deadline() == 30.0  # the window is restated
    attachment.inbound.receive(Head(attachment.id, 10, 1), now=1.0)
    assert attachments.next_deadline() == pytest.approx(1.02)
    for now in (29.0, 59.0, 89.0):
        attachment.inbound.statement(now=now)
    assert attachments.next_deadline() == 90.0
