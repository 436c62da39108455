"""What is saved of a program, there and back."""

from __future__ import annotations

import pytest

from sidecar.hands.interface import Exit, Program, Terminal
from sidecar.processes.record import Ended, Resize, Spec, Told
from sidecar.processes.register import CONTENT_BYTES, END_BYTES
from sidecar.processes.saved import Saved, SavedEnd, pack, pack_end, unpack, unpack_end
from sidecar.protocol.spool import OnFull

ID = b"i" * 16


def saved(**options: object) -> Saved:
    program = Program(argv=["make", b"\xff"], cwd="src", terminal=Terminal(20, 70))
    spec = Spec(
        program,
        timeout=3.5,
        idle_timeout=1.0,
        grace=0.5,
        ends_daemons=True,
        on_full=OnFull.HOLD,
        is_brief=True,
    )
    return Saved(
        ID,
        spec,
        Told.of(program),
        "me",
        began=12.25,
        began_wall=1_800_000_000.5,
        has_given_input=True,
        resizes=[Resize(7, 30, 90)],
    )


def test_a_program_comes_back_as_it_was_saved_but_for_what_only_its_start_needs() -> None:
    before = saved()
    after = unpack(pack(before))
    assert after.spec == Spec(
        Program(terminal=Terminal(20, 70)),
        timeout=3.5,
        idle_timeout=1.0,
        grace=0.5,
        ends_daemons=True,
        on_full=OnFull.HOLD,
        is_brief=True,
    )
    assert (after.id, after.told, after.owner) == (ID, before.told, "me")
    assert (after.began, after.began_wall, after.has_given_input) == (12.25, 1_800_000_000.5, True)
    assert after.resizes == [Resize(7, 30, 90)]


@pytest.mark.parametrize(
    "ended",
    [
        Ended(Exit(5, None, 0.25, 0.5, 4096), 1.5),
        Ended(Exit(None, 9), 1.5, "total"),
        Ended(None, 1.5, None, "nobody saw how"),
    ],
)
def test_an_end_comes_back_as_it_was_saved(ended: Ended) -> None:
    assert unpack_end(pack_end(SavedEnd(ended, 10.5))) == SavedEnd(ended, 10.5)


def test_the_longest_program_fits_into_its_slot() -> None:
    program = Program(argv=["x" * 5000] * 3, cwd=b"d" * 5000, terminal=Terminal())
    spec = Spec(program)
    resizes = [Resize(1 << 62, 65535, 65535)] * 16
    longest = Saved(ID, spec, Told.of(program), "c" * 63, 1e9, 2e9, False, resizes)
    assert len(pack(longest)) <= CONTENT_BYTES
    words = Program(argv=["x"] * 5000)
    assert len(pack(Saved(ID, spec, Told.of(words), None, 1e9, 2e9, False))) <= CONTENT_BYTES
    assert len(pack_end(SavedEnd(Ended(None, 1e9, "total", "é" * 5000), 2e9))) <= END_BYTES


@pytest.mark.parametrize("content", [b"", b"\xff", b"\xa0", b"\x80", b"\x01"])
def test_what_nobody_understands_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="is not understood"):
        unpack(content)
    with pytest.raises(ValueError, match="is not understood"):
        unpack_end(content)
