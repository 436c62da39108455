"""What is kept of a secret."""

from __future__ import annotations

import hashlib

import pytest

from sidecar.hub.platform import secrets
from sidecar.hub.platform.secrets import NOBODY, Kind, id_of, is_same, make


def test_what_is_kept_knows_the_secret_again_and_does_not_hold_it() -> None:
    text, kept = make(Kind.RUN_TOKEN)
    assert text.startswith(f"srt_{kept.id}_")
    assert kept.digest == hashlib.sha256(text.encode()).digest()
    assert is_same(text, kept)
    assert not is_same(text[:-1], kept)
    assert text.split("_", 2)[2] not in repr(kept)
    assert kept.digest.hex() not in repr(kept)


def test_no_two_are_alike() -> None:
    made = [make(Kind.PLATFORM_KEY)[0] for _ in range(100)]
    assert len(set(made)) == 100


def test_hashes_are_compared_by_what_takes_the_same_time_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []
    monkeypatch.setattr(
        secrets.hmac, "compare_digest", lambda one, other: compared.append((one, other))
    )
    is_same("anything", NOBODY)
    assert compared == [(hashlib.sha256(b"anything").digest(), bytes(32))]


@pytest.mark.parametrize(
    "text",
    ["", "srt_", "eyJ.a.b", "srt_0123456789abcdef_short", "spk_0123456789ABCDEF_" + "x" * 43],
)
def test_what_is_no_secret_of_ours_names_no_id(text: str) -> None:
    assert id_of(text, Kind.RUN_TOKEN) == id_of(text, Kind.PLATFORM_KEY) == ""


def test_a_secret_of_one_kind_names_no_id_of_the_other() -> None:
    text, kept = make(Kind.RUN_TOKEN)
    assert (id_of(text, Kind.RUN_TOKEN), id_of(text, Kind.PLATFORM_KEY)) == (kept.id, "")
