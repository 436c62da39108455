"""Roles and patterns against the examples of the documentation."""

from __future__ import annotations

import pytest

from sidecar.errors import Invalid, LimitExceeded
from sidecar.hub.permissions import Permissions, Right, check_group, compile_pattern


@pytest.mark.parametrize(
    "pattern, matches, others",
    [
        ("chat-*", ["chat-1", "chat-room", "chat-"], ["chat.1", "xchat-1"]),
        ("out.a.*", ["out.a.b"], ["out.a", "out.a.b.c", "out.b.a", "outxa.b"]),
        ("out.**", ["out.a", "out.a.b"], ["in.a", "out"]),
        ("rooms.?1", ["rooms.a1", "rooms.11"], ["rooms.1", "rooms.a.1", "rooms..1"]),
        (r"literal\*star", ["literal*star"], ["literalXstar"]),
        (r"back\\slash\?", [r"back\slash?"], [r"back\slashx"]),
        ("a\\b", ["a\\b"], ["ab"]),
        ("*", ["", "a", "a\n"], ["a.b"]),
    ],
)
def test_patterns_match_as_documented(pattern: str, matches: list[str], others: list[str]) -> None:
    compiled = compile_pattern(pattern)
    assert [text for text in matches if not compiled.fullmatch(text)] == []
    assert [text for text in others if compiled.fullmatch(text)] == []


def test_patterns_have_limits() -> None:
    compile_pattern("*" * 5)
    with pytest.raises(LimitExceeded, match="6, at most 5"):
        compile_pattern("**a**b**")
    with pytest.raises(LimitExceeded, match="1025"):
        compile_pattern("a" * 1025)
    with pytest.raises(LimitExceeded, match="patterns"):
        Permissions([f"webpubsub.sendToGroups.{n}.*" for n in range(11)])


def test_nothing_is_allowed_without_a_role() -> None:
    permissions = Permissions(["webpubsub.invoke", "other"])
    assert not permissions.allows(Right.SEND, "g")
    assert not permissions.allows(Right.JOIN, None)


def test_all_that_follows_the_first_dot_is_the_name_of_the_group() -> None:
    permissions = Permissions(["webpubsub.sendToGroup.out.a.b"])
    assert permissions.allows(Right.SEND, "out.a.b")
    assert not permissions.allows(Right.SEND, "out.a")
    assert not permissions.allows(Right.SEND, "OUT.A.B")
    assert not permissions.allows(Right.JOIN, "out.a.b")


def test_a_bare_role_covers_every_group() -> None:
    permissions = Permissions(["webpubsub.joinLeaveGroup"])
    assert permissions.allows(Right.JOIN, "g")
    assert permissions.allows(Right.JOIN, None)
    assert not permissions.allows(Right.SEND, "g")


def test_a_literal_star_in_a_literal_role_is_no_wildcard() -> None:
    permissions = Permissions(["webpubsub.sendToGroup.out.*"])
    assert permissions.allows(Right.SEND, "out.*")
    assert not permissions.allows(Right.SEND, "out.a")


def test_rights_are_granted_and_revoked() -> None:
    permissions = Permissions()
    permissions.grant(Right.SEND, "g")
    assert permissions.allows(Right.SEND, "g")
    permissions.revoke(Right.SEND, "g")
    assert not permissions.allows(Right.SEND, "g")
    permissions.grant(Right.JOIN, None)
    permissions.revoke(Right.JOIN, "g")  # takes nothing from a right to all
    assert permissions.allows(Right.JOIN, "g")
    permissions.revoke(Right.JOIN, None)
    assert not permissions.allows(Right.JOIN, "g")


def test_at_most_a_thousand_groups_are_named() -> None:
    permissions = Permissions([f"webpubsub.sendToGroup.{n}" for n in range(1000)])
    permissions.grant(Right.SEND, "0")
    with pytest.raises(LimitExceeded):
        permissions.grant(Right.SEND, "one more")


@pytest.mark.parametrize("name", ["", " \t", "g" * 1025])
def test_some_texts_name_no_group(name: str) -> None:
    with pytest.raises(Invalid):
        check_group(name)


def test_a_group_may_have_any_other_name() -> None:
    assert check_group("a b/ü*") == "a b/ü*"
