"""The client's surface: every name of it exists, and none is missing."""

from __future__ import annotations

import ast
from pathlib import Path

import sidecar.client


def test_what_the_package_imports_is_what_it_offers() -> None:
    tree = ast.parse(Path(sidecar.client.__file__).read_text())
    imported = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imported == set(sidecar.client.__all__)


def test_new_controller_ids_are_ids_and_differ() -> None:
    first, second = sidecar.client.new_controller_id(), sidecar.client.new_controller_id()
    assert first != second
    sidecar.client.controller.check_id(first)
