"""Asks a cluster by `program`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.ray.cluster import Node, RayCluster

PROGRAM = str(Path(__file__).with_name("program.py"))
ASK_SECONDS_MAX = 100.0


def begun(cluster: RayCluster, *words: str, **environ: str) -> subprocess.Popen[str]:
    """A question under way; an empty variable is one that is not there."""
    variables = {name: value for name, value in {**cluster.environ(), **environ}.items() if value}
    return subprocess.Popen(
        [*cluster.run_in_head, str(cluster.ray / "python"), PROGRAM, cluster.address, *words],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.sep,
    )


def answer(asked: subprocess.Popen[str]) -> tuple[Any, str]:
    """What it said, and what it wrote beside."""
    with asked:
        try:
            said, beside = asked.communicate(timeout=ASK_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            asked.kill()
            raise
    lines = said.splitlines()
    assert asked.returncode == 0, beside[-2000:]
    assert lines, beside[-2000:]
    return json.loads(lines[-1]), beside


def ask(cluster: RayCluster, *words: str, **environ: str) -> Any:
    """A question and its answer."""
    return answer(begun(cluster, *words, **environ))[0]


def node_id(cluster: RayCluster, node: Node) -> str:
    """What the cluster calls a live node; its tests are where each has an address of its own."""
    found = [
        known["NodeID"]
        for known in ask(cluster, "nodes")
        if known["Alive"] and known["NodeManagerAddress"] == node.address
    ]
    assert len(found) == 1, found
    return str(found[0])
