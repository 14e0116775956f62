"""Clusters in a fleet, and jobs that name where they run."""

import json

import pytest

from steersman.model.errors import NotYetError, SpecError
from steersman.model.fleet import Cluster, Fleet
from steersman.spec.parse import parse

SAME_POOL = """
nodes: [{name: n, cpus: 1, memory: 1GB, pool: p}]
clusters: [{name: g, infra: ray, address: 'h:1', pool: p}]
"""
ONE = "{name: gpu, infra: ray, address: 'head:6379'}"


def fleet(text: str) -> Fleet:
    found = parse(f"kind: fleet\n{text}\n", "my-fleet.yaml").fleet
    assert found is not None
    return found


def test_a_cluster_with_every_key() -> None:
    made = fleet(
        "clusters:\n"
        "  - {name: two, infra: ray, address: 'ray://[::1]:10001'}\n"
        "  - name: one\n"
        "    infra: ray\n"
        "    address: 10.0.0.5:6379\n"
        "    token: ray-token\n"
        "    allow_open: true\n"
        "    python: /opt/ray/bin/python\n"
        "    runtime_env: {pip: [torch], config: {eager: false, seconds: 600, share: 0.5, none: ~, t: '1'}}\n"
        "    node_dir: /scratch\n"
        "    shared_dir: /mnt/all\n"
        "    lease: 1m\n"
        "    site: eu\n"
        "    zone: a\n"
        "    use_spot: true\n"
        "    price_usd_per_hour: 1.5\n"
    )
    one, two = made.clusters
    assert two == Cluster(name="two", address="ray://[::1]:10001")
    assert one == Cluster(
        name="one",
        address="10.0.0.5:6379",
        token="ray-token",
        allow_open=True,
        python="/opt/ray/bin/python",
        runtime_env=one.runtime_env,
        node_dir="/scratch",
        shared_dir="/mnt/all",
        lease_ms=60_000,
        site="eu",
        zone="a",
        pool="one",
        market="spot",
        price_usd_micro_per_hour=1_500_000,
    )
    assert json.loads(one.runtime_env) == {
        "pip": ["torch"],
        "config": {"eager": False, "seconds": 600, "share": 0.5, "none": None, "t": "1"},
    }
    assert (one.infra, made.nodes) == ("ray/one", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"clusters: [{ONE}, {ONE}]", "two clusters are called 'gpu'"),
        ("clusters: [{name: gpu, infra: ray}]", "`address` is missing"),
        ("clusters: [{name: gpu, address: 'h:1'}]", "`infra` is missing"),
        ("clusters: [{name: gpu, infra: slurm, address: 'h:1'}]", "is not an engine"),
        ("clusters: [{name: gpu, infra: ray, address: head}]", "cannot be the address"),
        ("clusters: [{name: gpu, infra: ray, address: 'h:1', cpus: 4}]", "'cpus' is not a key"),
        ("clusters: [{name: gpu, infra: ray, address: 'h:1', lease: 1s}]", "out of range"),
        ("clusters: [{name: gpu, infra: ray, address: 'h:1', node_dir: scratch}]", "cannot be a folder"),
        ("clusters: [{name: gpu, infra: ray, address: 'h:1', runtime_env: pip}]", "is a mapping"),
        (
            "clusters: [{name: gpu, infra: ray, address: 'h:1', runtime_env: {working_dir: .}}]",
            "set by Steersman",
        ),
        ("clusters: [{name: gpu, infra: ray, address: 'h:1', token: '-'}]", "cannot be the name of a secret"),
        (SAME_POOL, "the pool 'p' is another entry's"),
        ("clusters: []\nnodes: []", "at least one node or cluster"),
    ],
)
def test_bad_clusters(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        fleet(text)
    assert words in caught.value.message
    assert caught.value.hint


def test_a_secret_in_a_runtime_env_is_warned_of() -> None:
    text = "{name: gpu, infra: ray, address: 'h:1', runtime_env: {env_vars: {HF_TOKEN: x, A: b}}}"
    (warning,) = parse(f"kind: fleet\nclusters: [{text}]\n", "f.yaml").warnings
    assert "'HF_TOKEN' looks like a secret" in warning
    plain = "{name: gpu, infra: ray, address: 'h:1', runtime_env: {env_vars: none}}"
    assert parse(f"kind: fleet\nclusters: [{plain}]\n", "f.yaml").warnings == ()


@pytest.mark.parametrize("infra", ["local", "ray", "ray/gpu"])
def test_a_job_names_where_it_runs(infra: str) -> None:
    (job,) = parse(f"name: j\nrun: 'true'\nresources: {{infra: {infra}}}\n", "j.yaml").workloads
    assert job.resources.infra == infra


@pytest.mark.parametrize("infra", ["aws", "ray/", "k8s/gpu", "ray/GPU"])
def test_where_nobody_runs_yet(infra: str) -> None:
    with pytest.raises(NotYetError) as caught:
        parse(f"name: j\nrun: 'true'\nresources: {{infra: {infra}}}\n", "j.yaml")
    assert "infra: ray" in caught.value.hint
