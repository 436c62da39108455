"""Whole trees, in and out: what is there already is passed over, so that a copy that was broken off
goes on when it is begun again. Nothing is kept of it anywhere but in the two trees.

    entries     what a tree is made of, and the plan of a copy: what is missing where
    here        the tree of this machine: looked through, and written by descriptors
    there       the tree in the sandbox: looked through
    up, down    the two ways
    telling     what a copy says of itself while it goes on

Links are copied as links and never followed. Small files travel together, large ones each by
itself, so that they go on in the middle (`uploading`, `downloading`).
"""

from __future__ import annotations

from sidecar.client.trees.down import download_tree, is_unfinished_here
from sidecar.client.trees.entries import EVERYTHING, Plan, Problem, TreeCopied, TreeOptions
from sidecar.client.trees.telling import Task, Teller
from sidecar.client.trees.up import is_unfinished_there, upload_tree

__all__ = [
    "download_tree",
    "EVERYTHING",
    "is_unfinished_here",
    "is_unfinished_there",
    "Plan",
    "Problem",
    "Task",
    "Teller",
    "TreeCopied",
    "TreeOptions",
    "upload_tree",
]
