"""What waits to be sent, to whom, and what goes first.

One `Outbox` per attachment holds what is ready; `Outboxes` picks the next hub message among
all of them. Nothing is put into a message before the channel asks for one (late binding):
what already lies in the socket's buffer sits in front of a keystroke.

The order: control (results, accepted, credit, windows); then streams with little queued
(keystrokes); then events; then bulk, round robin by chunk. Envelopes that are ready together
travel together. Bulk and events stay within the flow bound of their path; control and
keystrokes only within the window that the receiver granted. `window`, `blocked` and `detach`
are sent even without a window, for they are what opens it.

An item that the hub did not acknowledge before its connection was lost goes back to its
owner by `lost`: control is queued again, streams and readers rewind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

from sidecar.protocol.envelope import Detach, Envelope, Head, encode
from sidecar.protocol.flow import MIN_CHUNK, Flow
from sidecar.protocol.publish import Outcome, Publish
from sidecar.protocol.window import SendWindow

SPARSE = 4 * 1024  # bytes; at most this much queued on an idle stream counts as a keystroke
BATCH = 64 * 1024  # bytes of small envelopes that share one hub message
LANE_DEPTH = 2  # items that a lane may offer ahead: one to send, one being made
LANES_BYTES = 16 * 1024 * 1024  # that all lanes together offer ahead, where there are many
CONTROL_BYTES = 20 * 1024 * 1024  # of control that may wait: the largest answers of all open calls
CONTROL_LIMIT = 4096  # control envelopes that may wait; past it the attachment is given up


class Rank(IntEnum):
    """What goes first. Lower is sooner."""

    CONTROL = 0
    SPARSE = 1
    EVENTS = 2
    BULK = 3


@dataclass(slots=True, eq=False)
class Item:
    """Encoded envelopes that stay together. `lost` gives them back to their owner."""

    data: bytes
    lost: Callable[[], None] | None = None


class Lane:
    """One producer of events or stream data in an outbox.

    `on_room` is called when an item was taken, so that the producer makes the next one.
    """

    def __init__(self, rank: Rank, on_room: Callable[[], None]) -> None:
        self._rank = rank
        self._items: deque[Item] = deque()
        self._idle = True
        self.on_room = on_room
        self.is_closed = False

    @property
    def has_room(self) -> bool:
        return not self.is_closed and len(self._items) < LANE_DEPTH

    def offer(self, item: Item) -> None:
        """Queue `item`; the caller has looked at `has_room`."""
        assert self.has_room, "a lane holds at most LANE_DEPTH items"
        self._idle = not self._items
        self._items.append(item)

    def retract(self) -> list[Item]:
        """Take back whatever is still queued (a stream that rewinds makes it again)."""
        items = list(self._items)
        self._items.clear()
        return items

    @property
    def rank(self) -> Rank:
        """BULK counts as SPARSE while one small item is all there is."""
        if self._rank is Rank.BULK and len(self._items) == 1 and self._idle:
            if len(self._items[0].data) <= SPARSE:
                return Rank.SPARSE
        return self._rank

    def peek(self) -> Item | None:
        return self._items[0] if self._items else None

    def take(self) -> Item:
        return self._items.popleft()


@dataclass(slots=True)
class Outgoing:
    """One hub message, ready to be published."""

    group: str
    data: bytes
    urgent: bool
    items: list[Item] = field(default_factory=list)
    refused: Callable[[], None] | None = None  # told if the hub will not take it, now or later

    def publish(self) -> Publish:
        """As the channel takes it; it comes back as `lost` or `refused`."""
        return Publish(self.group, self.data, ttl=None, settled=self._settled, urgent=self.urgent)

    def _settled(self, outcome: Outcome) -> None:
        if outcome is Outcome.LOST:
            self.lost()
        elif outcome is Outcome.REFUSED and self.refused is not None:
            self.refused()

    def lost(self) -> None:
        """The connection ended before the hub acknowledged it."""
        for item in reversed(self.items):  # control goes back to the front of its queue
            if item.lost is not None:
                item.lost()


class Outbox:
    """What waits for one attachment."""

    def __init__(self, group: str, window: SendWindow, flow: Flow | None = None) -> None:
        self.group = group
        self.window = window
        self.flow = flow or Flow()
        self.is_closed = False
        self.overflowed = False
        self._control: deque[Item] = deque()
        self._control_bytes = 0
        self._exempt: dict[type[Envelope], bytes] = {}
        self._lanes: deque[Lane] = deque()

    def lane(self, rank: Rank, on_room: Callable[[], None]) -> Lane:
        lane = Lane(rank, on_room)
        lane.is_closed = self.is_closed
        if not self.is_closed:
            self._lanes.append(lane)
        return lane

    def close_lane(self, lane: Lane) -> None:
        lane.is_closed = True
        lane.retract()
        if lane in self._lanes:
            self._lanes.remove(lane)

    def control(self, envelope: Envelope, *, repeat: bool = True) -> None:
        """Queue a control envelope; with `repeat` it is queued again if it was lost."""
        self.control_item(Item(encode(envelope)), repeat=repeat)

    def control_item(self, item: Item, *, repeat: bool = True) -> None:
        """Queue encoded control. Too much of it means that nobody reads: see `overflowed`."""
        if self.is_closed:
            return
        waiting = self._control_bytes + len(item.data)
        if len(self._control) >= CONTROL_LIMIT or waiting > CONTROL_BYTES:
            self.overflowed = True
            return
        if repeat and item.lost is None:
            item.lost = partial(self._again, item)
        self._control_bytes = waiting
        self._control.append(item)

    def exempt(self, envelope: Envelope) -> None:
        """Queue a `window`, `blocked`, `event-ack` or `detach`: the newest of each kind, without
        a window. One that is lost is not sent again: a later one says it, or a new attachment."""
        if self.is_closed:
            return
        self._exempt[type(envelope)] = encode(envelope)

    @property
    def chunk(self) -> int:
        """How large the next chunk of a stream is to be: what the path carries in a moment, and
        less where so many streams offer chunks that all of them would be much memory."""
        busy = sum(1 for lane in self._lanes if lane.peek())
        share = LANES_BYTES // (LANE_DEPTH * max(1, busy))
        return min(self.flow.chunk, max(MIN_CHUNK, share))

    @property
    def is_empty(self) -> bool:
        return not self._control and not self._exempt and all(not x.peek() for x in self._lanes)

    @property
    def is_held(self) -> bool:
        """Something waits, and neither the receiver's window nor the flow lets anything go."""
        return not self.is_empty and self.rank() is None

    def rank(self) -> Rank | None:
        """The rank of what would go next, or None if nothing may go now."""
        if self._exempt:
            return Rank.CONTROL
        room = self.window.room()
        if self._control:
            return Rank.CONTROL if len(self._control[0].data) <= room else None
        best: Rank | None = None
        for lane in self._lanes:
            item = lane.peek()
            if item is None or len(item.data) > room:
                continue
            rank = lane.rank
            if best is not None and rank >= best:
                continue
            if rank < Rank.EVENTS or self._flows(len(item.data)):
                best = rank
        return best

    def next_message(self, *, now: float, urgent_only: bool) -> Outgoing | None:
        """The next hub message, or None. Accounts for it in window and flow."""
        rank = self.rank()
        if rank is None or (urgent_only and rank > Rank.SPARSE):
            return None
        exempt = list(self._exempt.values())
        closing = Detach in self._exempt
        self._exempt.clear()
        items: list[Item] = []
        size = self._take_control(items)
        taken = self._take_lanes(items, size, urgent_only)
        size += sum(len(item.data) for item in taken)
        items += taken
        if items:
            head = self.window.head(size)
            self.flow.sent(self.window.bytes, now=now)
        else:
            head = Head(self.window.attachment, self.window.bytes, self.window.messages)
        data = b"".join([encode(head), *exempt, *(item.data for item in items)])
        urgent = closing or rank <= Rank.SPARSE
        return Outgoing(self.group, data, urgent, items)

    def receive_window_totals(self, *, now: float) -> None:
        """The receiver reported what it saw: the path's rate and round trip are known better."""
        self.flow.seen(self.window.seen_bytes, now=now)

    def close(self) -> None:
        """Drop everything; producers find their lanes closed."""
        self.is_closed = True
        self._control.clear()
        self._control_bytes = 0
        self._exempt.clear()
        for lane in list(self._lanes):
            self.close_lane(lane)
            lane.on_room()

    def _again(self, item: Item) -> None:
        if not self.is_closed:
            self._control_bytes += len(item.data)
            self._control.appendleft(item)

    def _flows(self, size: int) -> bool:
        """Within the flow bound; with nothing in flight always, for a chunk may have been made
        when the path was faster, and nothing would ever raise the bound again."""
        in_flight = self.window.in_flight
        return not in_flight or in_flight + size <= self.flow.window

    def _take_control(self, items: list[Item]) -> int:
        room = min(BATCH, self.window.room())
        size = 0
        while self._control and (
            size + len(self._control[0].data) <= room
            or (not size and len(self._control[0].data) <= self.window.room())
        ):
            item = self._control.popleft()
            self._control_bytes -= len(item.data)
            size += len(item.data)
            items.append(item)
        return size

    def _take_lanes(self, items: list[Item], size: int, urgent_only: bool) -> list[Item]:
        """Sparse items and events while they fit, then at most one chunk of bulk."""
        taken: list[Item] = []
        room = self.window.room()
        ordered = sorted((lane for lane in self._lanes if lane.peek()), key=lambda x: x.rank)
        for lane in ordered:
            rank = lane.rank
            if urgent_only and rank > Rank.SPARSE:
                break
            item = lane.peek()
            assert item is not None
            big = len(item.data) > BATCH
            alone = not size and not items and not taken
            if size + len(item.data) > room or (size > BATCH) or (big and not alone):
                continue
            if rank >= Rank.EVENTS and not self._flows(size + len(item.data)):
                continue
            size += len(item.data)
            taken.append(lane.take())
            self._turn(lane)
            lane.on_room()
            if rank is Rank.BULK:
                break
        return taken

    def _turn(self, lane: Lane) -> None:
        """Whoever was served goes to the end of the round."""
        if lane in self._lanes:
            self._lanes.remove(lane)
            self._lanes.append(lane)


class Outboxes:
    """All outboxes of a process, and loose messages that belong to no attachment."""

    def __init__(self) -> None:
        self._boxes: deque[Outbox] = deque()
        self._loose: deque[Outgoing] = deque()

    def add(self, outbox: Outbox) -> None:
        self._boxes.append(outbox)

    def remove(self, outbox: Outbox) -> None:
        outbox.close()
        if outbox in self._boxes:
            self._boxes.remove(outbox)

    def loose(
        self,
        group: str,
        data: bytes,
        *,
        repeat: bool = False,
        refused: Callable[[], None] | None = None,
    ) -> None:
        """Queue a message without a head: `attach`, `attached`, `hello`, answers to REST."""
        if len(self._loose) >= CONTROL_LIMIT:
            self._loose.popleft()
        outgoing = Outgoing(group, data, urgent=True, refused=refused)
        if repeat:
            outgoing.items.append(Item(data, lost=lambda: self._loose.append(outgoing)))
        self._loose.append(outgoing)

    @property
    def is_empty(self) -> bool:
        return not self._loose and all(box.is_empty for box in self._boxes)

    def next_message(self, *, now: float, urgent_only: bool) -> Outgoing | None:
        """The message that goes next among all attachments; ties go round robin."""
        if self._loose:
            return self._loose.popleft()
        best: Outbox | None = None
        best_rank: Rank | None = None
        for box in self._boxes:
            rank = box.rank()
            if rank is not None and (best_rank is None or rank < best_rank):
                best, best_rank = box, rank
                if rank is Rank.CONTROL:
                    break
        if best is None:
            return None
        message = best.next_message(now=now, urgent_only=urgent_only)
        if message is not None:
            self._boxes.remove(best)
            self._boxes.append(best)
        return message
