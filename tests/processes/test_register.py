"""The register on disk: what the next process finds of what this one noted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.processes import register as module
from sidecar.processes.register import SLOT, Register, Slot, TellingAt
from sidecar.statefolder import StateUnusable

A, B = b"a" * 16, b"b" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "programs"


@pytest.fixture
def register(path: Path) -> Iterator[Register]:
    register, slots = Register.open(path)
    assert slots == []
    yield register
    register.close()


def found_in(path: Path) -> list[Slot]:
    register, slots = Register.open(path)
    register.close()
    return slots


def test_what_was_noted_is_found_by_the_next_process(register: Register, path: Path) -> None:
    register.put(A, b"one")
    register.put(B, b"two")
    register.note_spawned(A, 123, 456)
    register.note_fed(A)
    register.note_end(B, b"ended")
    register.note_settled(B, is_settled=True)
    assert found_in(path) == [
        Slot(1, b"one", 123, 456, is_settled=False, is_fed=True, end=None),
        Slot(2, b"two", 0, 0, is_settled=True, is_fed=False, end=b"ended"),
    ]


def test_what_changes_keeps_the_rest(register: Register, path: Path) -> None:
    register.put(A, b"one")
    register.note_spawned(A, 123, 456)
    register.note_end(A, b"ended")
    register.put(A, b"another")
    assert found_in(path) == [Slot(1, b"another", 123, 456, False, False, b"ended")]
    register.note_condemned(A)
    register.note_told(A, TellingAt(b"series__", 8, 9))
    register.put(A, b"another")
    register.note_end(A, None)
    assert found_in(path) == [
        Slot(1, b"another", 123, 456, False, False, None, True, TellingAt(b"series__", 8, 9))
    ]


def test_a_slot_is_used_again_without_a_trace_of_the_one_before(
    register: Register, path: Path
) -> None:
    register.put(A, b"one")
    register.note_spawned(A, 123, 456)
    register.note_end(A, b"ended")
    register.note_condemned(A)
    register.note_told(A, TellingAt(b"series__", 8, 9))
    register.drop(A)
    register.drop(A)
    assert found_in(path) == []
    register.put(B, b"two")
    assert found_in(path) == [Slot(1, b"two", 0, 0, False, False, None)]


def test_the_next_process_goes_on_in_the_same_slots(register: Register, path: Path) -> None:
    register.put(A, b"one")
    register.put(B, b"two")
    later, [first, second] = Register.open(path)
    later.keep(A, first)
    later.drop_slot(second)
    later.note_settled(A, is_settled=True)
    later.put(b"c" * 16, b"three")
    assert [slot.content for slot in found_in(path)] == [b"one", b"three"]
    later.close()


def test_a_slot_that_is_damaged_is_nobodys(register: Register, path: Path) -> None:
    register.put(A, b"one")
    register.put(B, b"two")
    with path.open("r+b") as file:
        file.seek(SLOT + 96)
        file.write(b"X")
    assert [slot.content for slot in found_in(path)] == [b"two"]


def test_an_end_that_is_damaged_is_unknown(register: Register, path: Path) -> None:
    register.put(A, b"one")
    register.note_end(A, b"ended")
    with path.open("r+b") as file:
        file.seek(SLOT + 3072 + 8)
        file.write(b"X")
    assert found_in(path) == [Slot(1, b"one", 0, 0, False, False, None)]


def test_a_register_of_another_boot_is_begun_anew(
    register: Register, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register.put(A, b"one")
    monkeypatch.setattr(module, "boot_id", lambda: bytes(16))
    assert found_in(path) == []
    assert found_in(path) == []


def test_a_register_of_a_newer_sidecar_is_left_alone(path: Path) -> None:
    head = b"programs" + (2).to_bytes(8, "little") + bytes(16)
    path.write_bytes(head)
    with pytest.raises(StateUnusable, match="has format 2, and this sidecar knows 1"):
        Register.open(path)
    assert path.read_bytes() == head


def test_a_disk_that_takes_nothing_is_said_once_and_stops_nothing(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, register._fd)
    os.close(full)
    for id in (A, B):
        register.put(id, b"one")
        register.note_spawned(id, 1, 2)
    assert register.disk_error == "ENOSPC"
    assert len([line for line in caplog.messages if "ENOSPC" in line]) == 1


def test_over_the_bound_a_program_is_not_on_record(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROGRAM_SLOTS", 1)
    register, _ = Register.open(path)
    register.put(A, b"one")
    register.put(B, b"two")
    register.note_spawned(B, 1, 2)
    register.drop(B)
    assert [slot.content for slot in found_in(path)] == [b"one"]
    register.close()
