"""What a process does about itself, looked at in one that has done it."""

from __future__ import annotations

import subprocess
import sys

PROTECTED = """
import ctypes, resource
from sidecar.hardening import protect_memory

PR_GET_DUMPABLE = 3
libc = ctypes.CDLL(None)
print(libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), end=" ")
print(protect_memory(), libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), end=" ")
print(resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


def test_a_protected_process_is_not_dumpable_and_writes_no_core_file() -> None:
    done = subprocess.run([sys.executable, "-c", PROTECTED], capture_output=True, text=True)
    assert done.stdout == "1 True 0 0\n", done.stderr


RAISED = """
import resource, subprocess
from sidecar.hardening import give_back_descriptor_limit, raise_descriptor_limit

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
for _ in range(2):
    raise_descriptor_limit()
soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
give_back_descriptor_limit(child.pid)
print(soft == min(hard, 65536), resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (100, hard))
child.communicate()
give_back_descriptor_limit(child.pid)
"""


def test_we_have_the_descriptors_that_we_may_have_and_programs_those_we_were_given() -> None:
    done = subprocess.run([sys.executable, "-c", RAISED], capture_output=True, text=True)
    assert done.stdout == "True True\n", done.stderr
