"""What goes first: control, keystrokes, events, bulk, round robin; and what is bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.protocol.envelope import (
    Accepted,
    Blocked,
    Cancel,
    Data,
    Detach,
    Envelope,
    Head,
    Result,
    Window,
    decode,
    encode,
    encode_data,
)
from sidecar.protocol.outbox import CONTROL_LIMIT, Item, Lane, Outbox, Outboxes, Outgoing, Rank
from sidecar.protocol.publish import Outcome
from sidecar.protocol.window import SendWindow

A = b"a" * 16
KIB = 1024


def outbox(room: int = 4 << 20, messages: int = 128, id: bytes = A) -> Outbox:
    return Outbox("out.r.c", SendWindow(id, room, messages))


def chunk(n: int, size: int, lost: Callable[[], None] | None = None) -> Item:
    return Item(encode_data(A, n, 0, b"x" * size), lost)


def quiet() -> None:
    """Nobody makes the next item."""


def bulk(box: Outbox, n: int, size: int = 60 * KIB) -> Lane:
    """A lane that is full of chunks of stream `n`, and is filled again when one is taken."""

    def fill() -> None:
        while lane.has_room:
            lane.offer(chunk(n, size))

    lane = box.lane(Rank.BULK, fill)
    fill()
    return lane


def sent(outgoing: Outgoing | None) -> list[object]:
    """What a message carries, without its head; stream data by number of the stream."""
    assert outgoing is not None
    head, *rest = decode(outgoing.data)
    assert isinstance(head, Head)
    return [item.n if isinstance(item, Data) else item for item in rest]


def take(box: Outbox | Outboxes, *, urgent_only: bool = False) -> Outgoing | None:
    return box.next_message(now=0.0, urgent_only=urgent_only)


# order ----------------------------------------------------------------------------------------


def test_nothing_waits_nothing_goes() -> None:
    box = outbox()
    assert box.is_empty
    assert not box.is_held
    assert take(box) is None


def test_control_goes_before_keystrokes_before_events_before_bulk() -> None:
    box = outbox()
    big = 200 * KIB
    box.lane(Rank.BULK, quiet).offer(chunk(1, big))
    box.lane(Rank.EVENTS, quiet).offer(Item(encode(Cancel(A))))
    box.lane(Rank.BULK, quiet).offer(chunk(2, 1))
    box.control(Accepted(A))
    assert sent(take(box)) == [Accepted(A), 2, Cancel(A)]
    assert sent(take(box)) == [1]
    assert box.is_empty


def test_what_is_ready_together_travels_together_with_one_head() -> None:
    box = outbox()
    for _ in range(3):
        box.control(Accepted(A))
    message = take(box)
    assert message is not None
    size = 3 * len(encode(Accepted(A)))
    assert message.data == encode(Head(A, size, 1)) + 3 * encode(Accepted(A))
    assert (message.group, message.urgent) == ("out.r.c", True)


def test_totals_run_on_from_message_to_message() -> None:
    box = outbox()
    box.control(Accepted(A))
    take(box)
    box.control(Accepted(A))
    message = take(box)
    assert message is not None
    assert decode(message.data)[0] == Head(A, 2 * len(encode(Accepted(A))), 2)


def test_bulk_is_not_urgent() -> None:
    box = outbox()
    bulk(box, 1)
    message = take(box)
    assert message is not None
    assert not message.urgent


def test_streams_take_turns_by_chunk() -> None:
    box = outbox()
    for n in (1, 2, 3):
        bulk(box, n)
    assert [sent(take(box)) for _ in range(6)] == [[1], [2], [3], [1], [2], [3]]


def test_a_keystroke_waits_for_one_chunk_at_most() -> None:
    box = outbox()
    bulk(box, 1)
    keys = box.lane(Rank.BULK, quiet)
    assert sent(take(box)) == [1]
    keys.offer(chunk(2, 1))
    assert sent(take(box)) == [2, 1]


def test_small_chunks_of_a_busy_stream_are_no_keystrokes() -> None:
    box = outbox()
    lane = box.lane(Rank.BULK, quiet)
    lane.offer(chunk(1, 10))
    assert lane.rank is Rank.SPARSE
    lane.offer(chunk(1, 10))
    assert lane.rank is Rank.BULK
    lane.take()
    assert lane.rank is Rank.BULK


@pytest.mark.parametrize("size, rank", [(4000, Rank.SPARSE), (5000, Rank.BULK)])
def test_a_keystroke_is_small(size: int, rank: Rank) -> None:
    lane = outbox().lane(Rank.BULK, quiet)
    lane.offer(chunk(1, size))
    assert lane.rank is rank


def test_urgent_only_leaves_events_and_bulk_where_they_are() -> None:
    box = outbox()
    bulk(box, 1)
    box.lane(Rank.EVENTS, quiet).offer(Item(encode(Cancel(A))))
    assert take(box, urgent_only=True) is None
    box.control(Accepted(A))
    box.lane(Rank.BULK, quiet).offer(chunk(2, 1))
    assert sent(take(box, urgent_only=True)) == [Accepted(A), 2]
    assert take(box, urgent_only=True) is None


def test_a_large_chunk_travels_alone() -> None:
    box = outbox()
    box.control(Accepted(A))
    box.lane(Rank.BULK, quiet).offer(chunk(1, 256 * KIB))
    assert sent(take(box)) == [Accepted(A)]
    assert sent(take(box)) == [1]


def test_much_control_is_cut_into_messages() -> None:
    box = outbox()
    for _ in range(3):
        box.control(Result(A, b"x" * 40 * KIB))
    assert [len(sent(take(box))) for _ in range(3)] == [1, 1, 1]
    assert take(box) is None


def test_no_message_outgrows_the_hub() -> None:
    box = outbox()
    for _ in range(20):
        box.control(Result(A, b"x" * 60 * KIB))
        box.lane(Rank.EVENTS, quiet).offer(Item(b"\x82\x02\xa0" * 20_000))
        box.lane(Rank.BULK, quiet).offer(chunk(1, 60 * KIB))
    sizes = []
    while (message := take(box)) is not None:
        sizes.append(len(message.data))
    assert max(sizes) < 200 * KIB


# bounds ---------------------------------------------------------------------------------------


def test_a_shut_window_holds_everything_but_what_opens_it() -> None:
    box = outbox(room=10)
    box.control(Accepted(A))
    bulk(box, 1)
    assert take(box) is None
    assert box.is_held
    box.exempt(Window(1, 1, 1, 1))
    box.exempt(Blocked())
    box.exempt(Blocked(offset=7))
    assert sent(take(box)) == [Window(1, 1, 1, 1), Blocked(offset=7)]  # the newest of each
    assert take(box) is None


def test_what_opens_the_window_does_not_count_against_it() -> None:
    box = outbox()
    box.exempt(Window(1, 1, 1, 1))
    message = take(box)
    assert message is not None
    assert decode(message.data)[0] == Head(A, 0, 0)
    assert (box.window.bytes, box.window.messages) == (0, 0)


def test_a_window_out_of_messages_is_shut() -> None:
    box = outbox(messages=1)
    box.control(Accepted(A))
    assert take(box) is not None
    box.control(Accepted(A))
    assert take(box) is None
    assert box.is_held
    box.window.receive(Window(box.window.bytes, 1, 4 << 20, 2))
    assert sent(take(box)) == [Accepted(A)]


def test_goodbye_is_said_through_a_shut_window() -> None:
    box = outbox(room=0)
    box.exempt(Detach())
    message = take(box)
    assert sent(message) == [Detach()]
    assert message is not None
    assert message.urgent


def test_bulk_and_events_keep_to_the_flow_of_the_path_and_urgent_things_pass() -> None:
    box = outbox()
    bulk(box, 1)
    box.flow.window = 130 * KIB
    assert [take(box) is not None for _ in range(3)] == [True, True, False]
    box.lane(Rank.EVENTS, quiet).offer(Item(b"\x82\x02\xa0" * 10_000))
    assert take(box) is None
    assert box.is_held
    box.control(Accepted(A))
    box.lane(Rank.BULK, quiet).offer(chunk(2, 1))
    assert sent(take(box)) == [Accepted(A), 2]


def test_a_chunk_of_a_faster_time_passes_when_nothing_is_in_flight() -> None:
    box = outbox()
    box.lane(Rank.BULK, quiet).offer(chunk(1, 256 * KIB))
    box.flow.window = 32 * KIB
    assert sent(take(box)) == [1]


def test_what_was_seen_teaches_the_flow() -> None:
    box = outbox()
    bulk(box, 1)
    take(box)
    box.window.receive(Window(box.window.bytes, 1, 4 << 20, 128))
    box.receive_window_totals(now=0.1)
    assert box.flow.trip == pytest.approx(0.1)


def test_control_for_a_reader_that_does_not_read_is_bounded() -> None:
    box = outbox(room=0)
    for _ in range(CONTROL_LIMIT):
        box.control(Accepted(A))
    assert not box.overflowed
    box.control(Accepted(A))
    assert box.overflowed


def test_a_lane_asks_for_the_next_item_when_one_was_taken() -> None:
    box = outbox()
    asked: list[str] = []
    lane = box.lane(Rank.EVENTS, lambda: asked.append("next"))
    lane.offer(Item(encode(Cancel(A))))
    lane.offer(Item(encode(Cancel(A))))
    assert not lane.has_room
    take(box)
    assert asked == ["next"]
    assert lane.has_room


# loss -----------------------------------------------------------------------------------------


def test_lost_control_is_sent_again_first_and_in_order() -> None:
    box = outbox()
    results = [Result(A, bytes([n]) * 10) for n in range(3)]
    box.control(results[0])
    box.control(results[1])
    message = take(box)
    assert message is not None
    box.control(results[2])
    message.lost()
    assert sent(take(box)) == results


def test_control_that_is_lost_again_is_sent_again() -> None:
    box = outbox()
    box.control(Accepted(A))
    for _ in range(3):
        message = take(box)
        assert sent(message) == [Accepted(A)]
        assert message is not None
        message.lost()


@pytest.mark.parametrize(
    "outcome, told",
    [(Outcome.ACKED, []), (Outcome.LOST, ["lost"]), (Outcome.REFUSED, ["refused"])],
)
def test_a_publish_tells_its_owner_how_it_ended(outcome: Outcome, told: list[str]) -> None:
    said: list[str] = []
    item = Item(b"x", lost=lambda: said.append("lost"))
    message = Outgoing("g", b"x", True, [item], refused=lambda: said.append("refused"))
    publish = message.publish()
    assert (publish.group, publish.data, publish.urgent) == ("g", b"x", True)
    publish.settled(outcome)
    assert said == told


def test_what_is_restated_anyway_is_not_sent_again() -> None:
    box = outbox()
    box.control(Blocked(A, 1), repeat=False)
    message = take(box)
    assert message is not None
    message.lost()
    assert box.is_empty


def test_a_chunk_that_was_lost_goes_back_to_its_stream() -> None:
    box = outbox()
    lost: list[int] = []
    box.lane(Rank.BULK, quiet).offer(chunk(1, 60 * KIB, lambda: lost.append(1)))
    message = take(box)
    assert message is not None
    message.lost()
    assert lost == [1]


def test_retracted_items_are_handed_back() -> None:
    box = outbox()
    lane = box.lane(Rank.BULK, quiet)
    first, second = chunk(1, 1), chunk(1, 2)
    lane.offer(first)
    lane.offer(second)
    assert lane.retract() == [first, second]
    assert (lane.retract(), take(box)) == ([], None)


# ends -----------------------------------------------------------------------------------------


def test_a_closed_outbox_takes_nothing_any_more() -> None:
    box = outbox()
    woken: list[str] = []
    lane = box.lane(Rank.BULK, lambda: woken.append("lane"))
    lane.offer(chunk(1, 1))
    box.control(Accepted(A))
    message = take(box)
    assert message is not None
    woken.clear()
    box.close()
    assert (woken, lane.is_closed, lane.has_room) == (["lane"], True, False)
    message.lost()
    box.control(Accepted(A))
    box.exempt(Detach())
    assert not box.lane(Rank.BULK, quiet).has_room
    assert box.is_empty


def test_a_closed_lane_leaves_its_turn() -> None:
    box = outbox()
    first = bulk(box, 1)
    bulk(box, 2)
    box.close_lane(first)
    box.close_lane(first)  # harmless
    assert [sent(take(box)) for _ in range(2)] == [[2], [2]]


# several attachments --------------------------------------------------------------------------


def several(*boxes: Outbox) -> Outboxes:
    outboxes = Outboxes()
    for box in boxes:
        outboxes.add(box)
    return outboxes


def heads(outboxes: Outboxes, count: int) -> list[bytes | None]:
    """To whom the next messages go, by the first byte of the attachment id."""
    found: list[bytes | None] = []
    for _ in range(count):
        message = take(outboxes)
        if message is None:
            found.append(None)
            continue
        head = decode(message.data)[0]
        assert isinstance(head, Head)
        found.append(head.attachment[:1])
    return found


def test_attachments_take_turns() -> None:
    boxes = [outbox(id=letter * 16) for letter in (b"a", b"b", b"c")]
    for box in boxes:
        bulk(box, 1)
    assert heads(several(*boxes), 6) == [b"a", b"b", b"c", b"a", b"b", b"c"]


def test_the_most_urgent_of_all_attachments_goes_first() -> None:
    one, two, three = (outbox(id=letter * 16) for letter in (b"a", b"b", b"c"))
    bulk(one, 1)
    two.lane(Rank.BULK, quiet).offer(chunk(1, 1))
    three.control(Accepted(A))
    assert heads(several(one, two, three), 3) == [b"c", b"b", b"a"]


@pytest.mark.parametrize(
    "shut",
    [
        pytest.param(lambda box: setattr(box.window, "limit_bytes", 0), id="window"),
        pytest.param(lambda box: setattr(box.flow, "window", 100), id="flow"),
    ],
)
def test_a_stalled_attachment_starves_nobody(shut: Callable[[Outbox], None]) -> None:
    stalled, fine = outbox(id=b"a" * 16), outbox(id=b"b" * 16)
    bulk(stalled, 1)
    bulk(fine, 1)
    take(stalled)
    shut(stalled)
    assert heads(several(stalled, fine), 4) == [b"b"] * 4


def test_stalled_control_of_one_attachment_starves_nobody() -> None:
    stalled, fine = outbox(room=0, id=b"a" * 16), outbox(id=b"b" * 16)
    stalled.control(Accepted(A))
    bulk(fine, 1)
    assert heads(several(stalled, fine), 2) == [b"b", b"b"]


def test_messages_without_attachment_go_first() -> None:
    box = outbox()
    box.control(Accepted(A))
    outboxes = several(box)
    outboxes.loose("out.r", b"hello")
    message = take(outboxes, urgent_only=True)
    assert message is not None
    assert (message.group, message.data, message.urgent) == ("out.r", b"hello", True)
    assert heads(outboxes, 2) == [b"a", None]
    assert outboxes.is_empty


@pytest.mark.parametrize("repeat", [True, False])
def test_a_lost_message_without_attachment_is_repeated_if_that_matters(repeat: bool) -> None:
    outboxes = Outboxes()
    outboxes.loose("out.r", b"result", repeat=repeat)
    for _ in range(3 if repeat else 1):
        message = take(outboxes)
        assert message is not None
        assert message.data == b"result"
        message.lost()
    assert outboxes.is_empty is not repeat


def test_messages_without_attachment_are_bounded_and_the_oldest_goes() -> None:
    outboxes = Outboxes()
    for n in range(CONTROL_LIMIT + 1):
        outboxes.loose("out.r", n.to_bytes(2, "big"))
    message = take(outboxes)
    assert message is not None
    assert message.data == b"\x00\x01"


def test_urgent_only_holds_for_all_attachments() -> None:
    one, two = outbox(id=b"a" * 16), outbox(id=b"b" * 16)
    bulk(one, 1)
    bulk(two, 1)
    outboxes = several(one, two)
    assert take(outboxes, urgent_only=True) is None
    two.control(Accepted(A))
    assert sent(take(outboxes, urgent_only=True)) == [Accepted(A)]


def test_a_removed_attachment_is_sent_nothing() -> None:
    box = outbox()
    bulk(box, 1)
    outboxes = several(box)
    outboxes.remove(box)
    outboxes.remove(box)  # harmless
    assert take(outboxes) is None
    assert outboxes.is_empty


def test_the_head_is_the_only_overhead_of_a_large_chunk() -> None:
    box = outbox()
    box.lane(Rank.BULK, quiet).offer(chunk(1, 256 * KIB))
    message = take(box)
    assert message is not None
    envelope: Envelope = Head(A, 256 * KIB + 27, 1)
    assert len(message.data) == len(encode(envelope)) + 256 * KIB + 27


def test_where_many_streams_offer_chunks_each_of_them_is_smaller() -> None:
    box = outbox()
    box.flow.chunk = 256 * KIB
    assert box.chunk == 256 * KIB
    for n in range(32):
        bulk(box, n)
        box.lane(Rank.BULK, quiet)  # one that offers nothing takes no share
    assert box.chunk == 256 * KIB
    for n in range(32):
        bulk(box, n)
    assert box.chunk == 128 * KIB
    box.flow.chunk = 16 * KIB
    assert box.chunk == 16 * KIB
