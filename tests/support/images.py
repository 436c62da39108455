"""The images of tests in containers, built from this tree and from a Debian made on the spot."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from podman import Engine, EngineError

ROOT = Path(__file__).parent.parent.parent  # of the repository
SUITE = "bookworm"


@dataclass(frozen=True, slots=True)
class Images:
    """Names of what was built."""

    bare: str = "localhost/debian:12"  # without Python
    base: str = "localhost/python:3.11"  # what the next two are built from
    sidecar: str = "localhost/sidecar:test"
    dev: str = "localhost/sidecar:dev"


def build_images(engine: Engine, folder: Path) -> Images:
    """All of them. What is there of Debian is taken; ours are built by what changed."""
    images = Images()
    if not engine.has(images.bare):
        make_bare_debian(engine, images.bare, folder)
    if not engine.has(images.base):
        (folder / "Containerfile").write_text(
            f"FROM {images.bare}\n"
            "RUN apt-get update -q && apt-get install -q -y --no-install-recommends"
            " python3 python3-venv && rm -rf /var/lib/apt/lists/*\n"
        )
        engine.build(images.base, folder)
    for tag, target in ((images.sidecar, "sidecar"), (images.dev, "dev")):
        engine.build(tag, ROOT, target=target, arguments={"BASE_IMAGE": images.base})
    return images


def mirror() -> str:
    """Where this machine takes Debian's packages from, by what apt itself says."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        uri, _, release = line.rpartition(" ")
        if release == SUITE:
            return uri
    raise EngineError(f"apt knows no source of {SUITE}: {done.stdout!r}")


def make_bare_debian(engine: Engine, tag: str, folder: Path) -> None:
    """A Debian without Python, as `docker.io/library/debian:12-slim` is, made on the spot."""
    tar = folder / "bare.tar"
    subprocess.run(
        [
            "mmdebstrap",
            "-q",
            "--variant=minbase",
            "--include=ca-certificates",
            SUITE,
            str(tar),
            f"deb {mirror()} {SUITE} main",
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    engine.run("import", "-c", 'CMD ["bash"]', str(tar), tag, timeout=120)
    tar.unlink()
