import resource
import sys

import pytest
import torch

from pocketprune.training.allocation import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_memory_freed_is_taken_again_without_page_faults():
    if not keep_freed_memory():
        pytest.skip("another C library")

    def work():
        blocks = [torch.ones(2**22) for _ in range(6)]  # 16 MiB each: 4096 pages
        return sum(float(block[0]) for block in blocks)

    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        work()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 30 * 4096 / 4  # of the 30 blocks' pages
