"""Names on the hub: an id never widens a group or a role."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Invalid
from sidecar.protocol.names import Scope, Subject, check_id, controller_grant, sidecar_grant


@pytest.mark.parametrize("id", ["a", "7", "run-1", "a--b", "a" * 63])
def test_one_dns_label_is_an_id(id: str) -> None:
    assert check_id(id) == id


@pytest.mark.parametrize(
    "id",
    ["", "-a", "a-", "a" * 64, "A", "a.b", "a*", "*", "ä", "a b", "a\n", "a\x00", "٣", "a/b"],
)
def test_anything_else_is_none(id: str) -> None:
    with pytest.raises(Invalid, match="run id .* is not an id: 1 to 63 characters"):
        check_id(id, "run id")


@pytest.mark.parametrize("id", [None, 5, b"run"])
def test_what_is_no_text_is_no_id(id: object) -> None:
    with pytest.raises(Invalid):
        check_id(id)  # type: ignore[arg-type]


def test_the_sentence_about_a_long_id_is_short() -> None:
    with pytest.raises(Invalid) as caught:
        check_id("x" * 1_000_000)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=70))
def test_an_id_holds_neither_a_dot_nor_a_star(text: str) -> None:
    try:
        id = check_id(text)
    except Invalid:
        return
    assert set(id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_the_groups_of_a_run() -> None:
    subject = Subject("r1")
    assert subject.commands_group == "in.r1"
    assert subject.watch_group == "see.r1"
    assert subject.hello_group == "out.r1"
    assert subject.reply_group("c1") == "out.r1.c1"
    assert subject.user_id == "sandbox:r1"


def test_no_subject_and_no_reply_without_an_id() -> None:
    with pytest.raises(Invalid, match="run id"):
        Subject("r1.x")
    with pytest.raises(Invalid, match="controller id"):
        Subject("r1").reply_group("*")


@pytest.mark.parametrize(
    "group, scope",
    [
        ("in.r1", Scope.FULL),
        ("see.r1", Scope.WATCH),
        ("in.r2", None),
        ("out.r1", None),
        ("in.r1.x", None),
        ("", None),
    ],
)
def test_the_group_decides_the_scope(group: str, scope: Scope | None) -> None:
    assert Subject("r1").scope_of(group) is scope


def test_a_sidecar_may_only_answer_for_its_run_and_join_nothing() -> None:
    assert sidecar_grant("r1").claims() == {
        "sub": "sandbox:r1",
        "webpubsub.group": ["in.r1", "see.r1"],
        "role": ["webpubsub.sendToGroup.out.r1", "webpubsub.sendToGroups.out.r1.*"],
    }


@pytest.mark.parametrize("scope, inbound", [(Scope.FULL, "in"), (Scope.WATCH, "see")])
def test_a_controller_may_only_speak_through_the_group_of_its_scope(
    scope: Scope, inbound: str
) -> None:
    assert controller_grant("c1", ["r1", "r2"], scope).claims() == {
        "sub": "control:c1",
        "webpubsub.group": ["out.r1", "out.r1.c1", "out.r2", "out.r2.c1"],
        "role": [f"webpubsub.sendToGroup.{inbound}.r1", f"webpubsub.sendToGroup.{inbound}.r2"],
    }


@pytest.mark.parametrize("count", [0, 51])
def test_the_runs_of_one_token_are_bounded(count: int) -> None:
    with pytest.raises(Invalid, match="between 1 and 50 allowed"):
        controller_grant("c1", [f"r{n}" for n in range(count)])
