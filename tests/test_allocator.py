"""hbo.kernels.allocator keeps freed memory."""

import subprocess
import sys

import pytest
from conftest import ROOT

COUNT = """
import resource, sys
from hbo.kernels import allocator
kept = sys.argv[1] == "kept" and allocator.keep_freed_memory()
import torch
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def update():
    a = torch.ones(64 << 20, dtype=torch.uint8)  # 64 MB: above what malloc ever learns to keep by itself
    b = a + 1
for _ in range(8):
    update()
before = faults()
for _ in range(4):
    update()
print(kept, faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_kept_by_the_allocator_causes_no_new_page_faults():
    def count(mode):
        out = subprocess.run(
            [sys.executable, "-c", COUNT, mode], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        kept, faults = out.split()
        return kept == "True", int(faults)

    counts = [count("kept") for _ in range(3)]  # a kernel that reclaims idle pages adds faults
    assert all(kept for kept, _ in counts)
    few = min(number for _, number in counts)
    _, many = count("given back")
    assert few < 200
    assert many > 10 * few + 200  # otherwise the first assert would prove nothing
