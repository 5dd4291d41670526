"""Training on two machines: two network namespaces, each with its own copy of the tar shards and its own disk."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers.waiting import until

from train.commands.shards import write_shards
from train.data.build import load_data
from train.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
DOUBLE = Path(__file__).parents[1] / "helpers" / "double_precision.py"
OPTIONS = (
    *("--arch", "tiny", "--weights", "none", "--batch", "7", "--epochs", "6", "--patience", "0", "--workers", "0"),
    *("--without", "jpeg,recapture", "--no-pictures", "--precision", "no"),
)
"""A batch of 7 is 4 faces on one machine and 3 on the other."""


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def machines():
    """The names of two network namespaces that are joined by a cable, 10.77.0.1 and 10.77.0.2."""
    names = [f"edge-{os.getpid()}-{number}" for number in (1, 2)]
    if shutil.which("ip") is None or any(ip("netns", "add", name).returncode for name in names):
        pytest.skip("needs network namespaces: root and iproute2")
    ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
    for number, name in enumerate(names, 1):
        ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
        for device in ("lo", "cable"):
            ip("-n", name, "link", "set", device, "up")
    yield names
    for name in names:
        ip("netns", "del", name)


@pytest.fixture(scope="module")
def shards(faces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(load_data(faces), folder / "first", 100_000)
    shutil.copytree(folder / "first", folder / "second")
    return folder


def start(machines, shards, outs):
    """Start `torchrun` on both machines."""
    launched = []
    for number, (name, copy, out) in enumerate(zip(machines, ("first", "second"), outs, strict=True)):
        launcher = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1")
        place = ("--node-rank", str(number), "--master-addr", "10.77.0.1", "--master-port", "29500")
        words = (*launcher, *place, DOUBLE, shards / copy, "--out", out, *OPTIONS)
        launched.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *map(str, words)],
                env={**os.environ, "GLOO_SOCKET_IFNAME": "cable", "CUDA_VISIBLE_DEVICES": ""},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return launched


def ended(launched):
    """The exit codes, and what was written to standard error."""
    errors = [process.communicate(timeout=600)[1] for process in launched]
    return [process.returncode for process in launched], errors


def epochs_done(out):
    return len((out / "metrics.jsonl").read_text().splitlines()) if (out / "metrics.jsonl").exists() else 0


def test_two_machines_learn_what_one_learns(machines, shards, faces, tmp_path):
    """Also where training was stopped on the second machine, which saves nothing, and started again."""
    one, outs = tmp_path / "one", (tmp_path / "two", tmp_path / "elsewhere")
    words = (sys.executable, DOUBLE, faces, "--out", one, *OPTIONS)
    subprocess.run([*map(str, words)], check=True, capture_output=True, timeout=600)
    launched = start(machines, shards, outs)
    until(lambda: epochs_done(outs[0]) or launched[0].poll() is not None, 300)
    launched[1].send_signal(signal.SIGINT)
    errors = ended(launched)[1]
    assert [error.splitlines().count("stopped") for error in errors] == [1, 1], errors
    step = load_checkpoint(outs[0] / "last.pth").extra["progress"]["step"]
    codes, errors = ended(start(machines, shards, outs))
    assert codes == [0, 0], errors
    alone, together = (load_checkpoint(out / "last.pth") for out in (one, outs[0]))
    assert 0 < step < together.extra["progress"]["step"] == alone.extra["progress"]["step"]
    for key, weight in alone.state_dict.items():
        assert float((weight.double() - together.state_dict[key].double()).abs().max()) <= 1e-5, key
    assert (outs[0] / "best.pth").exists()
    assert not outs[1].exists()


def test_a_killed_machine_ends_the_other_in_one_line(machines, shards, tmp_path):
    outs = (tmp_path / "two", tmp_path / "elsewhere")
    launched = start(machines, shards, outs)
    until(lambda: epochs_done(outs[0]) or launched[0].poll() is not None, 300)
    for process in psutil.Process(launched[1].pid).children():
        process.kill()
    codes, errors = ended(launched)
    assert 0 not in codes
    lines = [line for line in errors[0].splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors[0]
    assert "process 0 of 2" in lines[0]
    assert load_checkpoint(outs[0] / "last.pth").extra["progress"]["epoch"] >= 1
