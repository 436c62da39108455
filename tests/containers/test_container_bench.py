"""The benchmark of containers runs with tiny sizes. No time is judged."""

from __future__ import annotations

import math

from images import Images
from podman import Engine

from tests.bench.container import in_containers
from tests.bench.measure import TINY


async def test_the_benchmark_of_containers_measures_all_of_its_rows(
    engine: Engine, images: Images, agent_image: str
) -> None:
    rows = await in_containers(TINY, engine, images, agent_image)
    assert len(rows) == 5
    for row in rows:
        assert row.value is not None and math.isfinite(row.value) and row.value > 0, row
