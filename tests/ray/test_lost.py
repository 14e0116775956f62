"""A cluster that never comes back: nothing is decided on what ran there until a person says so."""

import contextlib
import re
import time
from pathlib import Path

import pytest
from tests.e2e.steer_process import end_work, refused, steer
from tests.ray.cluster import QUICK, RayCluster, Shape
from tests.ray.conftest import RAY
from tests.ray.steering import fleet, until

pytestmark = pytest.mark.slow
JOB = "name: beats\nresources: {cpus: 1, memory: 64MB}\nrun: sleep 1000\nstop_duration: 1s\n"
SILENT_SECONDS = 20
"""Longer than the lease: time alone is no proof."""


@pytest.mark.timeout(300)
def test_the_word_of_a_person_ends_the_waiting(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = RayCluster(RAY)
    try:
        with contextlib.closing(made):
            made.start(Shape(2), Shape(2), environ=QUICK)
            steer(home, "secret", "set", "ray-token", stdin=made.token.encode())
            steer(home, "up", "-", stdin=fleet(made).encode())
            until(home, lambda status: status["clusters"][0]["nodes"] == 2)
            steer(home, "up", "-", "--no-wait", stdin=JOB.replace("{cpus", "{infra: ray, cpus").encode())
            status = until(home, lambda status: status["workloads"][0]["run_state"] == "running")
            refused(steer(home, "lost", "gpu"), "answers, so it is not lost")
        run = status["workloads"][0]["run"]
        until(home, lambda status: status["clusters"][0]["problem"])
        time.sleep(SILENT_SECONDS)
        status = until(home, lambda status: True)
        assert (status["workloads"][0]["run"], status["workloads"][0]["run_state"]) == (run, "running")
        done = steer(home, "lost", "gpu")
        assert (done.returncode, done.stdout.count("gpu-")) == (0, 2), done.stderr
        until(home, lambda status: status["workloads"][0]["run_state"] != "running")
        told = steer(home, "explain", "beats").stdout
        assert re.search(r"rank 0 was lost: node gpu-\S+ was declared dead", told), told
        done = steer(home, "down", "beats")
        assert done.returncode == 0, done.stderr
    finally:
        end_work(home)
