"""The manifests of examples/kubernetes, as data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent.parent.parent / "examples" / "kubernetes"

Document = dict[str, Any]


def load(name: str) -> Document:
    """The one document of a file."""
    [document] = yaml.safe_load_all((FOLDER / name).read_text())
    assert isinstance(document, dict)
    return document


def containers(pod: Document) -> Iterator[Document]:
    """All of a pod, in the order in which they start."""
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def container(pod: Document, name: str) -> Document:
    [found] = [one for one in containers(pod) if one["name"] == name]
    return found


def environment(container: Document) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("env", ())}


def mounts(pod: Document, volume: str) -> dict[str, Document]:
    """Where a volume is mounted, by the name of the container."""
    return {
        one["name"]: mount
        for one in containers(pod)
        for mount in one["volumeMounts"]
        if mount["name"] == volume
    }
