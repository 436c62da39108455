"""The podman of these tests keeps to itself."""

from __future__ import annotations

from images import Images
from podman import HARDENED, Engine


def test_a_hardened_container_has_no_capability_and_writes_nowhere(
    engine: Engine, images: Images
) -> None:
    told = engine.output(
        "run", "--rm", "--network=none", *HARDENED, "--user=10001", images.bare,
        "sh", "-c", "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; touch /x || echo no",
    )  # fmt: skip
    assert told.split() == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "no"]
