"""Ctrl-C and SIGTERM end a process cleanly, however many networks it has built and dropped."""

import signal
import subprocess
import sys

PROGRAM = """
import gc, os, signal, sys
import openvino as ov
from edge_runtime.model.bundle import Bundle
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core

bundle = Bundle.open(sys.argv[1])
if sys.argv[2] == "cores":
    import edge_runtime.inference.classifier
    edge_runtime.inference.classifier.openvino_core = ov.Core

def build():
    return Classifier(bundle.model("int8"), bundle.contract)

first = build()
second = build()
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.kill(os.getpid(), signal.SIGTERM)
for _ in range(1_000_000):
    pass
sys.exit("the signal was not handled")
"""


def end_of(bundle_path, cores: str) -> int:
    command = [sys.executable, "-c", PROGRAM, str(bundle_path), cores]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode


def test_a_signal_is_handled_after_networks_were_replaced(bundle_path):
    assert end_of(bundle_path, "one core") == 0


def test_a_core_for_each_network_dies_of_the_signal(bundle_path):
    # The day this fails, OpenVINO has mended it and openvino_core() may go.
    assert end_of(bundle_path, "cores") == -signal.SIGSEGV
