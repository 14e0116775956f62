"""The manifest of examples/kuberay has the fields that its kinds have, and its objects agree.

It was never applied here: there is no Kubernetes. What can be known without one is held, and every check is
shown a planted fault that it must find. With STEERSMAN_KUBERAY_CRD naming the file of the operator's
CustomResourceDefinition, the RayCluster is held against that too: `make check-kuberay CRD=…`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.examples.kuberay_agreement import CHECKS, faults
from tests.unit.examples.kuberay_schemas import (
    FOLDER,
    MANIFEST,
    RAY_CLUSTER,
    Object,
    closed,
    native_faults,
    operator_schema,
    read,
    schema_faults,
)

from steersman.spec.parse import parse

CRD = os.environ.get("STEERSMAN_KUBERAY_CRD", "")

Plant = Callable[[dict[str, Any]], Any]


@pytest.fixture
def objects() -> list[Object]:
    return read(MANIFEST)


def ray(objects: list[Object]) -> Object:
    (cluster,) = (each for each in objects if each["kind"] == "RayCluster")
    return cluster


def named(objects: list[Object]) -> dict[str, Any]:
    """What plants change: the RayCluster's spec, its head's pod, its containers by name, all else by name."""
    spec = ray(objects)["spec"]
    pod = spec["headGroupSpec"]["template"]["spec"]
    inside = {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}
    others = {f"{each['kind']}/{each['metadata']['name']}": each for each in objects}
    return {"spec": spec, "head": pod, "workers": spec["workerGroupSpecs"], **inside, **others}


def test_every_object_is_as_kubernetes_has_it(objects: list[Object]) -> None:
    assert native_faults(objects) == []


def test_the_cluster_has_the_fields_that_are_known(objects: list[Object]) -> None:
    assert schema_faults(ray(objects), RAY_CLUSTER) == []


def test_the_cluster_is_as_its_operator_has_it(objects: list[Object]) -> None:
    """Against the CustomResourceDefinition itself; what schemas of ours refuse, it refuses too."""
    if not CRD:
        pytest.skip(
            "STEERSMAN_KUBERAY_CRD names no file with KubeRay's CustomResourceDefinition of RayClusters"
        )
    schema = operator_schema(Path(CRD))

    assert schema_faults(ray(objects), schema) == []
    for plant in (*SPEC_PLANTS.values(), *POD_PLANTS.values()):
        spoilt = read(MANIFEST)
        plant(named(spoilt))
        assert len(schema_faults(ray(spoilt), schema)) == 1


def test_the_objects_agree(objects: list[Object]) -> None:
    assert faults(objects) == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: str(path.name))
def test_what_is_declared_beside_it_parses(path: Path) -> None:
    """The job and the service of the guide."""
    if path != MANIFEST:
        assert parse(path.read_text(encoding="utf-8"), path.name).warnings == ()


SPEC_PLANTS: dict[str, Plant] = {
    "an unknown field": lambda all_: all_["spec"].update(authOption={"mode": "token"}),
    "an unknown word": lambda all_: all_["spec"]["authOptions"].update(mode="tokens"),
    "a text for a number": lambda all_: all_["workers"][0].update(replicas="2"),
    "a number for a text": lambda all_: all_["spec"]["headGroupSpec"]["rayStartParams"].update(
        {"num-cpus": 0}
    ),
    "a field that is missing": lambda all_: all_["workers"][0].pop("groupName"),
    "a field of another place": lambda all_: all_["workers"][1].update(image="ray"),
    "a field misspelt": lambda all_: all_["spec"]["gcsFaultToleranceOptions"].update(redisAdress="a:1"),
}

POD_PLANTS: dict[str, Plant] = {
    "an unknown field of a container": lambda all_: all_["ray-head"].update(imagePullPolcy="Always"),
    "a field of the pod in a container": lambda all_: all_["steersman"].update(shareProcessNamespace=True),
    "a port without its number": lambda all_: all_["ray-head"]["ports"][0].pop("containerPort"),
    "a text for a flag": lambda all_: all_["head"].update(shareProcessNamespace="true"),
    "a mount without its path": lambda all_: all_["seal-token"]["volumeMounts"][0].pop("mountPath"),
}

NATIVE_PLANTS: dict[str, Plant] = {
    **POD_PLANTS,
    "an unknown field of a Service": lambda all_: all_["Service/steersman-gateway"]["spec"].update(port=8000),
    "a text for a list": lambda all_: all_["PersistentVolumeClaim/steersman-home"]["spec"].update(
        accessModes="x"
    ),
    "no selector": lambda all_: all_["StatefulSet/steersman-ray-store"]["spec"].pop("selector"),
    "an unknown field of a policy": lambda all_: all_["NetworkPolicy/steersman-gateway"]["spec"].update(
        egres=[]
    ),
}


@pytest.mark.parametrize("plant", SPEC_PLANTS.values(), ids=SPEC_PLANTS)
def test_the_schema_of_our_own_bites(objects: list[Object], plant: Plant) -> None:
    plant(named(objects))

    assert len(schema_faults(ray(objects), RAY_CLUSTER)) == 1


@pytest.mark.parametrize("plant", NATIVE_PLANTS.values(), ids=NATIVE_PLANTS)
def test_the_schemas_of_kubernetes_bite(objects: list[Object], plant: Plant) -> None:
    plant(named(objects))

    assert len(native_faults(objects)) == 1


def test_a_schema_is_closed_where_it_lists_fields() -> None:
    """Also below lists and below a field that is called `properties`; not where unknown fields are kept."""
    fields = {"type": "object", "properties": {"a": {"type": "string"}}}
    deep = {"type": "object", "properties": {"properties": {"type": "array", "items": fields}}}
    kept = {**fields, "x-kubernetes-preserve-unknown-fields": True}

    assert len(schema_faults({"b": 1}, closed(fields))) == 1
    assert len(schema_faults({"properties": [{"a": "x"}, {"b": 1}]}, closed(deep))) == 1
    assert schema_faults({"b": 1}, closed(kept)) == []
    assert schema_faults({"b": 1}, closed({"type": "object"})) == []


def _fleet(before: str, after: str) -> Plant:
    """Another word in the declaration of the fleet."""

    def plant(all_: dict[str, Any]) -> None:
        data = all_["ConfigMap/steersman-fleet"]["data"]
        assert before in data["fleet.yaml"]
        data["fleet.yaml"] = data["fleet.yaml"].replace(before, after, 1)

    return plant


AGREEMENT_PLANTS: dict[str, tuple[str, Plant]] = {
    "another namespace": (
        "namespaces",
        lambda all_: all_["ConfigMap/steersman-fleet"]["metadata"].update(namespace="x"),
    ),
    "another head": ("fleet", _fleet("steersman-ray-head-svc:6379", "steersman-head-svc:6379")),
    "another port of the head": (
        "fleet",
        lambda all_: all_["ray-head"]["ports"][0].update(containerPort=6380),
    ),
    "no authentication": ("fleet", lambda all_: all_["spec"]["authOptions"].update(mode="disabled")),
    "another name of the token": ("fleet", _fleet("token: ray-token", "token: token")),
    "the secret of another cluster": (
        "fleet",
        lambda all_: all_["head"]["volumes"][2]["secret"].update(secretName="x"),
    ),
    "another key of the secret": (
        "fleet",
        lambda all_: all_["head"]["volumes"][2]["secret"]["items"][0].update(key="token"),
    ),
    "a folder that no node has": ("fleet", _fleet("node_dir: /scratch", "node_dir: /data")),
    "another password": (
        "secrets",
        lambda all_: all_["spec"]["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"][
            "secretKeyRef"
        ].update(name="x"),
    ),
    "a volume that is not there": (
        "volumes",
        lambda all_: all_["workers"][0]["template"]["spec"]["volumes"].pop(),
    ),
    "another claim": (
        "volumes",
        lambda all_: all_["head"]["volumes"][0].update(persistentVolumeClaim={"claimName": "x"}),
    ),
    "another ConfigMap": ("volumes", lambda all_: all_["head"]["volumes"][1]["configMap"].update(name="x")),
    "a folder of its own": ("beside", lambda all_: all_["steersman"]["volumeMounts"].pop()),
    "processes apart": ("beside", lambda all_: all_["head"].pop("shareProcessNamespace")),
    "the sidecar first": ("beside", lambda all_: all_["head"]["containers"].reverse()),
    "another image": ("beside", lambda all_: all_["steersman"].update(image="r/steersman-ray:0.1.0-gpu")),
    "another user": ("beside", lambda all_: all_["steersman"]["securityContext"].update(runAsUser=1001)),
    "the autoscaler": ("beside", lambda all_: all_["spec"].update(enableInTreeAutoscaling=True)),
    "another home": (
        "home",
        lambda all_: all_["steersman"]["env"][0].update(value="/var/lib/steersman/other"),
    ),
    "an opened home": ("home", lambda all_: all_["head"]["securityContext"].pop("fsGroupChangePolicy")),
    "addresses in the environment": ("home", lambda all_: all_["head"].pop("enableServiceLinks")),
    "another port of the gateway": ("gateway", _fleet("port: 8000", "port: 8080")),
    "names that are refused": ("gateway", _fleet("- steersman-gateway\n", "- gateway\n")),
    "a probe of another port": (
        "gateway",
        lambda all_: all_["steersman"]["livenessProbe"]["exec"]["command"].append(
            "http://127.0.0.1:8471/livez"
        ),
    ),
    "a Service that leads nowhere": (
        "services",
        lambda all_: all_["Service/steersman-ray-store"]["spec"].update(selector={"a": "b"}),
    ),
    "another store": (
        "services",
        lambda all_: all_["spec"]["gcsFaultToleranceOptions"].update(redisAddress="redis:6379"),
    ),
    "an open store": (
        "policies",
        lambda all_: all_["NetworkPolicy/steersman-ray-store"]["spec"]["podSelector"].update(
            matchLabels={"a": "b"}
        ),
    ),
    "a store that is shut": (
        "policies",
        lambda all_: all_["NetworkPolicy/steersman-ray-store"]["spec"]["ingress"][0]["from"][0][
            "podSelector"
        ]["matchExpressions"][0].update(values=["worker"]),
    ),
    "root": (
        "rights",
        lambda all_: all_["workers"][1]["template"]["spec"]["securityContext"].update(runAsNonRoot=False),
    ),
    "a privilege": (
        "rights",
        lambda all_: all_["steersman"]["securityContext"].update(allowPrivilegeEscalation=True),
    ),
    "no limit": ("rights", lambda all_: all_["ray-head"]["resources"]["limits"].pop("memory")),
    "a node that is too large": ("sizes", _fleet("cpus: 1", "cpus: 3")),
    "another Ray": ("versions", lambda all_: all_["spec"].update(rayVersion="2.55.0")),
    "an old image": ("versions", lambda all_: all_["ray-head"].update(image="r/steersman-ray:0.0.9")),
}


@pytest.mark.parametrize(("check", "plant"), AGREEMENT_PLANTS.values(), ids=AGREEMENT_PLANTS)
def test_the_checks_of_agreement_bite(objects: list[Object], check: str, plant: Plant) -> None:
    plant(named(objects))

    assert check in {fault.partition(":")[0] for fault in faults(objects)}


def test_every_check_of_agreement_has_its_fault() -> None:
    assert {check for check, _ in AGREEMENT_PLANTS.values()} == {check.__name__ for check in CHECKS}
