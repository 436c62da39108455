from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from sidecar import allocator

PROBE = """
import ctypes, sys
from sidecar.allocator import tune_malloc

if sys.argv[1] == "tuned":
    assert tune_malloc()

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
print(hex(libc.malloc(1_000_000) or 0))
print(next(line for line in open("/proc/self/maps") if "[heap]" in line).split()[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc")
@pytest.mark.parametrize("mode, in_heap", [("tuned", True), ("default", False)])
def test_a_chunk_comes_from_the_heap_once_tuned(mode: str, in_heap: bool) -> None:
    command = [sys.executable, "-c", PROBE, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    address, heap = done.stdout.split()
    start, end = (int(edge, 16) for edge in heap.split("-"))
    assert (start <= int(address, 16) < end) is in_heap


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert allocator.tune_malloc() is False
