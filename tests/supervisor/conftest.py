"""A real `sidecar supervise` for the tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from supervised import Supervised, supervised


@pytest.fixture
def box() -> Iterator[Supervised]:
    """Not started yet. Its core will find a token that is none, and so no channel."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to run processes as other users")
    with supervised() as found:
        found.give_token("no token")
        yield found
