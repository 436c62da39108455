from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.errors import CallError, Code
from sidecar.protocol import envelope
from sidecar.uploadnotes import Note, UploadNotes, note_name

NOTE = Note("folder/file", b"u" * 16, 1_700_000_000.5)


def test_notes_outlive_the_process(tmp_path: Path) -> None:
    notes = UploadNotes.open(tmp_path / "uploads")
    assert notes.put(NOTE)
    assert not notes.put(NOTE)
    raw = Note(b"caf\xe9", b"v" * 16, 1.0)
    notes.put(raw)

    later = UploadNotes.open(tmp_path / "uploads")
    assert sorted(later.all(), key=lambda note: note.wall) == [raw, NOTE]
    later.drop(NOTE.name)
    later.drop(NOTE.name)
    assert UploadNotes.open(tmp_path / "uploads").all() == [raw]


def test_a_note_that_is_renewed_is_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = UploadNotes.open(tmp_path / "uploads")
    notes.put(NOTE)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> int:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "write", kill)
        notes.put(replace(NOTE, wall=NOTE.wall + 1))
    assert UploadNotes.open(tmp_path / "uploads").all() == [NOTE]

    notes.put(replace(NOTE, wall=NOTE.wall + 2))
    assert UploadNotes.open(tmp_path / "uploads").all() == [replace(NOTE, wall=NOTE.wall + 2)]


def test_a_note_is_named_for_path_and_id() -> None:
    names = {
        note_name(path, upload)
        for path in ("a", "b", b"\xff", "\udcff", "")
        for upload in (b"u" * 16, b"v" * 16)
    }
    assert len(names) == 10


def test_more_notes_than_there_may_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.uploadnotes.UPLOADS", 2)
    notes = UploadNotes.open(tmp_path / "uploads")
    notes.put(Note("a", b"u" * 16, 1.0))
    notes.put(Note("b", b"u" * 16, 1.0))
    notes.put(Note("a", b"u" * 16, 2.0))  # known
    with pytest.raises(CallError) as caught:
        notes.put(Note("c", b"u" * 16, 1.0))
    assert caught.value.code is Code.LIMIT
    assert len(os.listdir(tmp_path / "uploads")) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xff",
        envelope.dumps([1, 2]),
        envelope.dumps(["a", b"u" * 16, "late"]),
        envelope.dumps([["a"], b"u" * 16, 1.0]),
        envelope.dumps(["other", b"u" * 16, 1.0]),  # under the name of another one
        envelope.dumps(["a" * 20_000, b"u" * 16, 1.0]),
    ],
)
def test_what_is_no_note_is_removed(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / NOTE.name).write_bytes(content)
    assert UploadNotes.open(folder).all() == []
    assert os.listdir(folder) == []


def test_what_we_did_not_put_there_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (tmp_path / "elsewhere").write_bytes(envelope.dumps(["a", b"u" * 16, 1.0]))
    names = [note_name("a", b"u" * 16), "0" * 32, "1" * 32]
    (folder / names[0]).symlink_to(tmp_path / "elsewhere")
    (folder / names[1]).mkdir()
    os.mkfifo(folder / names[2])
    (folder / "notes.txt").touch()
    notes = UploadNotes.open(folder)
    assert notes.all() == []
    assert sorted(os.listdir(folder)) == sorted([*names, "notes.txt"])
    notes.put(Note("a", b"u" * 16, 1.0))  # which cannot be put on record, and is known all the same
    assert len(notes) == 1
    assert (folder / names[0]).is_symlink()


def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "uploads").symlink_to("elsewhere")
    notes = UploadNotes.open(tmp_path / "uploads")
    notes.put(NOTE)
    assert os.listdir(tmp_path / "elsewhere") == []
    assert notes.all() == [NOTE]


def test_notes_without_a_folder_are_in_memory() -> None:
    notes = UploadNotes()
    notes.put(NOTE)
    assert notes.all() == [NOTE]
    notes.drop(NOTE.name)
    assert len(notes) == 0
