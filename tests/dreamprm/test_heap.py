"""Freed memory stays: a process that frees and takes the same memory again meets no new pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from dreamprm.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def turn():
    kept = [np.ones(2**17) for _ in range(200)]  # 200 MB
for _ in range(2):
    turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own setting")
def test_freed_memory_stays() -> None:
    # 200 MB are 50,000 pages of 4 KB; some are met anew in any case.
    assert _faults("keep") < 1_000 < _faults("no")
