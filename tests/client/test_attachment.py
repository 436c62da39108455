"""What a controller does when another sidecar answers, without any sidecar."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.client.attachment import RemoteAttachment
from sidecar.client.pending import PendingCall
from sidecar.clock import ManualClock
from sidecar.errors import CallError, Code, Started
from sidecar.protocol import envelope as wire
from sidecar.protocol.attach import DURABLE_RECEIPTS
from sidecar.protocol.names import Subject
from sidecar.protocol.outbox import Outboxes
from sidecar.protocol.streams import SendStream
from sidecar.streaming import BytesSource, Sender

OLD, NEW = b"\x01" * 16, b"\x02" * 16  # incarnations; the greater one is the newer


class Bench:
    """An attachment, with the test in the sidecar's place."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.outboxes = Outboxes()
        self.attachment = RemoteAttachment(
            Subject("demo"),
            "me",
            "in.demo",
            self.outboxes,
            clock=self.clock,
            wake=lambda: None,
            window=lambda: (1 << 20, 64),
        )

    def sent(self) -> list[Any]:
        """Everything that went out since the last look."""
        envelopes: list[Any] = []
        while message := self.outboxes.next_message(now=self.clock.now(), urgent_only=False):
            envelopes += wire.decode(message.data)
        return envelopes

    def answer(
        self, incarnation: bytes, *features: str, series: bytes = OLD, generation: int = 1
    ) -> None:
        """Attach to that incarnation."""
        self.attachment.begin()
        (attach,) = [x for x in self.sent() if isinstance(x, wire.Attach)]
        self.attachment.receive_attached(
            wire.Attached(
                attach.nonce,
                incarnation[::-1][:15] + b"a",
                series,
                incarnation,
                generation,
                1,
                0,
                1,
                [1 << 20, 64],
                list(features),
            )
        )

    def receive(self, envelope: wire.Envelope) -> None:
        """The sidecar that answered last says something."""
        assert self.attachment.answer is not None
        head = wire.Head(self.attachment.answer.attachment, 100, 1)
        self.attachment.receive_message(head, [envelope], 100)

    def start(self, command: str) -> PendingCall:
        call = wire.Call(bytes(16), command, b"\xa0")
        pending = PendingCall(call.id, call, credit=0, clock=self.clock, send=self.attachment.send)
        self.attachment.start(pending)
        return pending


def calls_in(envelopes: list[Any]) -> int:
    return sum(isinstance(envelope, wire.Call) for envelope in envelopes)


async def test_a_call_goes_to_no_second_sidecar_that_cannot_know_whether_it_ran() -> None:
    bench = Bench()
    bench.answer(OLD)
    call = bench.start("exec.run")
    assert calls_in(bench.sent()) == 1
    bench.answer(NEW)
    assert calls_in(bench.sent()) == 0
    with pytest.raises(CallError, match="whether it ran is unknown") as caught:
        await call.wait()
    assert (caught.value.code, caught.value.started) == (Code.OUTCOME_UNKNOWN, Started.UNKNOWN)
    bench.attachment.close()


async def test_it_is_sent_again_to_the_same_sidecar() -> None:
    bench = Bench()
    bench.answer(OLD)
    bench.start("exec.run")
    bench.sent()
    bench.answer(OLD)
    assert calls_in(bench.sent()) == 1
    bench.attachment.close()


async def test_one_that_was_succeeded_gets_nothing_while_its_successor_is_away() -> None:
    bench = Bench()
    bench.answer(NEW, generation=2)
    bench.answer(OLD, DURABLE_RECEIPTS, generation=1)
    assert bench.attachment.answer is not None
    assert bench.attachment.answer.generation == 2
    assert bench.attachment.is_attaching and bench.attachment.split_brain
    bench.attachment.close()


@pytest.mark.parametrize(
    "command, features", [("files.stat", ()), ("exec.run", (DURABLE_RECEIPTS,))]
)
async def test_it_is_sent_to_the_next_one_where_that_does_no_harm(
    command: str, features: tuple[str, ...]
) -> None:
    bench = Bench()
    bench.answer(OLD)
    bench.start(command)
    bench.sent()
    bench.answer(NEW, *features)
    assert calls_in(bench.sent()) == 1
    bench.attachment.close()


async def test_receipts_that_last_do_not_help_in_another_state_folder() -> None:
    bench = Bench()
    bench.answer(OLD, DURABLE_RECEIPTS)
    call = bench.start("exec.run")
    bench.sent()
    bench.answer(NEW, DURABLE_RECEIPTS, series=NEW)
    assert calls_in(bench.sent()) == 0
    with pytest.raises(CallError, match="whether it ran is unknown"):
        await call.wait()
    bench.attachment.close()


async def test_one_that_had_not_begun_when_the_sidecar_ended_is_sent_to_the_next() -> None:
    bench = Bench()
    bench.answer(OLD, DURABLE_RECEIPTS)
    call = bench.start("exec.run")
    call.accepted = True
    bench.answer(NEW, DURABLE_RECEIPTS)
    assert calls_in(bench.sent()) == 0  # it is only asked about
    bench.receive(wire.State(call.id, "resend"))
    assert calls_in(bench.sent()) == 1
    assert not call.accepted
    bench.attachment.close()


@pytest.mark.parametrize("known_as", ["resend", "unknown_call"])
async def test_one_whose_bytes_went_with_a_sidecar_is_only_asked_about(known_as: str) -> None:
    bench = Bench()
    bench.answer(OLD, DURABLE_RECEIPTS)
    call = bench.start("files.write")
    stream = SendStream(call.id, 3, limit=100)
    sender = Sender(stream, BytesSource(b"input"), clock=bench.clock, wake=lambda: None)
    bench.attachment.add_sender(call, sender)
    stream.sent(5)
    bench.receive(wire.Credit(call.id, 3, 5, 100, ended=True))  # and `accepted` was not said yet
    bench.sent()
    bench.answer(NEW, DURABLE_RECEIPTS)
    bench.clock.advance(1.0)
    call.handle_deadline(now=bench.clock.now())
    assert [x for x in bench.sent() if isinstance(x, wire.Call | wire.Ask)] == [call.ask()] * 2
    bench.receive(wire.State(call.id, known_as))
    with pytest.raises(CallError) as caught:
        await call.wait()
    assert (caught.value.code, caught.value.started) == (Code.NOT_ACCEPTED, Started.NO)
    assert calls_in(bench.sent()) == 0
    bench.attachment.close()


async def test_one_that_was_never_sent_goes_to_whoever_answers() -> None:
    bench = Bench()
    bench.start("exec.run")
    bench.answer(NEW)
    assert calls_in(bench.sent()) == 1
    bench.attachment.close()


async def test_the_goodbye_to_an_old_attachment_is_said_again_if_it_was_lost() -> None:
    bench = Bench()
    bench.answer(OLD)
    bench.sent()
    bench.answer(OLD)
    goodbye = bench.outboxes.next_message(now=0.0, urgent_only=False)
    assert goodbye is not None
    assert wire.Detach() in wire.decode(goodbye.data)
    goodbye.lost()
    assert wire.Detach() in bench.sent()
    bench.attachment.close()
