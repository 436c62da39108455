"""Who may give which command."""

from __future__ import annotations

import pytest

from sidecar.errors import CallError, Code
from sidecar.policy import EgressLimits, Policy, Request, Spent
from sidecar.protocol.effects import Effect
from sidecar.protocol.names import Scope


@pytest.mark.parametrize("effect", list(Effect))
def test_full_scope_through_an_attachment_may_everything(effect: Effect) -> None:
    request = Request("any.thing", effect, Scope.FULL, is_addressed=True)
    assert Policy().decide(request).allowed


@pytest.mark.parametrize("effect", [Effect.WRITE, Effect.EXEC, Effect.ADMIN])
def test_a_watcher_may_only_read(effect: Effect) -> None:
    decision = Policy().decide(Request("exec.run", effect, Scope.WATCH, is_addressed=True))
    with pytest.raises(CallError, match="exec.run through a watch-only group") as caught:
        decision.enforce()
    assert caught.value.code is Code.FORBIDDEN
    read = Request("files.read", Effect.READ, Scope.WATCH, is_addressed=True)
    assert Policy().decide(read).allowed


@pytest.mark.parametrize("effect", [Effect.WRITE, Effect.EXEC, Effect.ADMIN])
def test_a_call_that_names_no_sidecar_may_only_read(effect: Effect) -> None:
    decision = Policy().decide(Request("files.write", effect, Scope.FULL, is_addressed=False))
    assert (decision.allowed, decision.code) == (False, Code.FORBIDDEN)
    read = Request("sidecar.info", Effect.READ, Scope.FULL, is_addressed=False)
    assert Policy().decide(read).allowed


def test_a_refusal_of_content_says_which_limit_it_was_and_what_was_spent() -> None:
    policy = Policy(EgressLimits(call=10, run=20))
    assert policy.decide_egress(10, Spent(call=0, run=10)).allowed
    assert policy.egress_left(Spent(call=0, run=15)) == 5
    for spent, details in (
        (Spent(call=1, run=1), {"which": "call", "limit": 10, "spent": 1}),
        (Spent(call=0, run=11), {"which": "run", "limit": 20, "spent": 11}),
    ):
        with pytest.raises(CallError, match="10 bytes of content") as caught:
            policy.decide_egress(10, spent).enforce()
        assert (caught.value.code, caught.value.details) == (Code.DENIED, details)
        assert f"(SIDECAR_EGRESS_{details['which'].upper()})" in str(caught.value)


def test_without_limits_any_content_may_leave() -> None:
    assert Policy().decide_egress(1 << 60, Spent(1 << 60, 1 << 60)).allowed
    assert Policy().egress_left(Spent(0, 0)) is None
