"""What examples/kuberay is made of, and whether each object has the fields and types that its kind has.

Theory of operation. Objects of Kubernetes' own, and the pod templates in the RayCluster, are held against the
published schemas of one version, strictly: an unknown field is a fault. The RayCluster itself is held against
two: `RAY_CLUSTER`, written by hand from the fields that the manifest uses, always; and the schema of the
operator's own CustomResourceDefinition, where a file with it is given (it is not ours to ship). That one lets
unknown fields through, so it is closed first. Rules of it that are no types (CEL) are not evaluated.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "examples" / "kuberay"
MANIFEST = FOLDER / "steersman.yaml"
KUBERNETES = "1.34"
VERSION = "v1"

Object = dict[str, Any]

_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_TEMPLATE = {"type": "object", "required": ["spec"]}  # a pod template: held against Kubernetes' own schema


def _record(required: str, **properties: Any) -> Object:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


_GROUP = {"rayStartParams": _TEXTS, "template": _TEMPLATE}
RAY_CLUSTER: Object = _record(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=_record("name namespace", name={**_TEXT, "maxLength": 50}, namespace=_TEXT),
    spec=_record(
        "rayVersion authOptions gcsFaultToleranceOptions headGroupSpec workerGroupSpecs",
        rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        authOptions=_record("mode", mode={"enum": ["disabled", "token"]}),
        enableInTreeAutoscaling={"type": "boolean"},
        gcsFaultToleranceOptions=_record(
            "redisAddress redisPassword",
            redisAddress=_TEXT,
            redisPassword=_record(
                "valueFrom",
                valueFrom=_record("secretKeyRef", secretKeyRef=_record("name key", name=_TEXT, key=_TEXT)),
            ),
        ),
        headGroupSpec=_record("rayStartParams template", **_GROUP),
        workerGroupSpecs={
            "type": "array",
            "minItems": 1,
            "items": _record(
                "groupName replicas minReplicas maxReplicas rayStartParams template",
                groupName=_TEXT,
                replicas=_COUNT,
                minReplicas=_COUNT,
                maxReplicas=_COUNT,
                **_GROUP,
            ),
        },
    ),
)
"""The fields of a RayCluster that the manifest uses, as KubeRay 1.5.1 to 1.7 have them."""


def read(path: Path) -> list[Object]:
    """The objects of a manifest. Anchors share what they name, so each object is copied whole."""
    with path.open(encoding="utf-8") as file:
        return [copy.deepcopy(each) for each in yaml.safe_load_all(file)]


def templates(cluster: Object) -> Iterator[tuple[str, Object]]:
    """(where, pod template) of each group of a RayCluster."""
    yield "head", cluster["spec"]["headGroupSpec"]["template"]
    for group in cluster["spec"]["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


def native_faults(objects: list[Object]) -> list[str]:
    """What Kubernetes' own schemas say of the objects, and of the pod templates of a RayCluster."""
    faults = []
    for each in objects:
        held = [each]
        if each["kind"] == "RayCluster":
            held = [
                {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": where}, "template": template}
                for where, template in templates(each)
            ]
        for one in held:
            try:
                kubernetes_validate.validate(one, KUBERNETES, strict=True)
            except jsonschema.ValidationError as error:
                faults.append(f"{one['kind']} {one['metadata']['name']}: {error.json_path}: {error.message}")
    return faults


def schema_faults(cluster: Object, schema: Object) -> list[str]:
    """What a schema says of a RayCluster."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(cluster)
    return sorted(f"{error.json_path}: {error.message}" for error in found)


def operator_schema(path: Path) -> Object:
    """The schema of RayClusters in a file with the operator's CustomResourceDefinition, closed."""
    with path.open(encoding="utf-8") as file:
        definition = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert definition["spec"]["names"]["kind"] == "RayCluster", f"{path} defines something else"
    (version,) = (each for each in definition["spec"]["versions"] if each["name"] == VERSION)
    schema: Object = closed(version["schema"]["openAPIV3Schema"])
    return schema


def closed(schema: Any) -> Any:
    """A schema that refuses unknown fields wherever it lists the known ones, unless it says to keep them."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    # A field may be called `properties`: what lists fields also has the type of an object.
    if made.get("type") == "object" and "properties" in made:
        kept = made.get("x-kubernetes-preserve-unknown-fields") is True
        made.setdefault("additionalProperties", kept)
    return made
