"""Ray with two nodes: workers are killed, the driver is killed, and every row is there once."""

import os
import subprocess
import sys
import time

import psutil
import pytest
from helpers.waiting import until

PICTURES, PART = 600, 5


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two raylets with one CPU each."""
    pytest.importorskip("ray", reason="needs ray: pip install ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made.address
    made.shutdown()


def actors():
    """The processes of our actors."""
    return [
        found for found in psutil.process_iter(["cmdline"]) if "PartWorker" in " ".join(found.info["cmdline"] or [])
    ]


@pytest.mark.slow
def test_killed_workers_and_a_killed_driver_lose_and_repeat_nothing(
    cluster, judge, bundle_path, pictures, rows_of, tmp_path
):
    many, out = tmp_path / "many", tmp_path / "out"
    many.mkdir()
    for number in range(PICTURES):
        os.link(pictures / f"{2 * (number % 3):02}.png", many / f"{number:04}.png")
    command = [sys.executable, "-m", "edge_runtime.bulk.cli", str(many), "--model", str(bundle_path), "--out", str(out)]
    command += ["--part-size", str(PART), "--engine", "ray", "--ray-address", cluster]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def parts():
        return len(list(out.glob("part-*")))

    driver = subprocess.Popen(command, env=environment)
    until(lambda: parts() >= 5 or driver.poll() is not None, 300)
    driver.kill()
    driver.wait()
    until(lambda: not actors(), 60)
    left = parts()
    assert 5 <= left < PICTURES // PART
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    killed, last = 0, left
    while driver.poll() is None:
        time.sleep(0.02)
        # Not faster than workers start, or nothing is ever done.
        if last + 10 <= parts() < PICTURES // PART - 10 and (working := actors()):
            working[0].kill()
            killed, last = killed + 1, parts()
    printed = driver.communicate()[0]
    assert driver.returncode == 0
    assert killed >= 2
    assert f"{left} before, 0 failed of {PICTURES // PART}" in printed
    judge(many, "--out", tmp_path / "alone")
    rows = rows_of(out)
    assert len(rows) == len({row["picture"] for row in rows}) == PICTURES
    assert rows == rows_of(tmp_path / "alone")
