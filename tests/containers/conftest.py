"""Real containers: one podman for all of the tests here, and images that are built once.

`TEST_PODMAN_DIR=DIR pytest tests/containers` keeps storage and images in DIR from one run to the
next, which spares a minute; the images `sidecar` and `dev` are built anew by what changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import build_agent_image
from images import Images, build_images
from podman import TOOLS, Engine

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Images take a minute to build: slow, each one of them."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(600))  # the first one builds


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make containers with other users in them")
    kept = os.environ.get("TEST_PODMAN_DIR")
    if kept:
        yield Engine(Path(kept))
        return
    engine = Engine(Path(tempfile.mkdtemp(prefix="podman-")))
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def images(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """All of them, built from this tree."""
    return build_images(engine, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def agent_image(engine: Engine, images: Images, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bare Debian with the sidecar's folder in it: see `boxes`."""
    return build_agent_image(engine, images, tmp_path_factory.mktemp("agent"))
