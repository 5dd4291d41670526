import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from train.learning.memory import keep_memory
{keep}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(64, 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(keep):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has the switch")
def test_a_tensor_that_is_freed_does_not_fault_its_pages_in_again():
    assert faults("") > 10_000  # 64 MiB are 16,384 pages
    assert faults("assert keep_memory()") < 100
