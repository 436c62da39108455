"""Who may give which command."""

from __future__ import annotations

import pytest

from sidecar.errors import CallError, Code
from sidecar.policy import Policy, Request
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
