"""What the objects of examples/kuberay must agree on: a schema sees each by itself, and no reference.

Theory of operation. Each check reads the whole manifest and says what does not fit, in words; `CHECKS` holds
them all. A check that finds nothing to look at is a fault too, so that a renamed field does not silence it.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

from tests.unit.examples.kuberay_schemas import FOLDER, ROOT, Object, templates

from steersman.model.fleet import Cluster, Fleet
from steersman.model.service import Gateway
from steersman.spec.parse import parse

SHARED = ("/tmp/ray", "/dev/shm")
TOKEN_KEY = "auth_token"
SCALE = {"": 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}

Faults = Iterator[str]


class Manifest:
    """The objects by kind and name."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects
        self.by_name = {(each["kind"], each["metadata"]["name"]): each for each in objects}
        (self.cluster,) = self.of("RayCluster")
        self.name: str = self.cluster["metadata"]["name"]
        self.head: Object = self.cluster["spec"]["headGroupSpec"]["template"]["spec"]

    def of(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def pods(self) -> Iterator[tuple[str, dict[str, str], Object]]:
        """(where, labels, spec) of every pod, with the labels that KubeRay gives."""
        for where, template in templates(self.cluster):
            kind = "head" if where == "head" else "worker"
            yield where, {"ray.io/cluster": self.name, "ray.io/node-type": kind}, template["spec"]
        for each in self.of("StatefulSet"):
            template = each["spec"]["template"]
            yield each["metadata"]["name"], template["metadata"]["labels"], template["spec"]

    def container(self, name: str) -> Object:
        (found,) = (each for each in containers(self.head) if each["name"] == name)
        return found

    def declared(self) -> tuple[Fleet, Gateway]:
        """The fleet and the gateway in the ConfigMap, as Steersman's own parser takes them."""
        (config,) = self.of("ConfigMap")
        ((file, text),) = config["data"].items()
        found = parse(text, file)
        assert found.fleet is not None
        assert found.gateway is not None
        return found.fleet, found.gateway


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def every(node: Any, key: str) -> Iterator[Any]:
    """Every value of that key, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from every(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from every(value, key)


def quantity(text: Any) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", str(text)).groups()  # type: ignore[union-attr]  # a fault of the schema
    return float(number) * SCALE[unit]


def _chosen(selector: Object, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    ruled = all(labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", ()))
    return wanted <= labels.items() and ruled


def namespaces(made: Manifest) -> Faults:
    (space,) = made.of("Namespace")
    for each in made.objects:
        if each is not space and each["metadata"].get("namespace") != space["metadata"]["name"]:
            yield f"{each['kind']} {each['metadata']['name']} is not in {space['metadata']['name']}"


def fleet(made: Manifest) -> Faults:
    """The address is the Service that KubeRay makes for the head; the token is the one that it makes."""
    declared, _ = made.declared()
    (cluster,) = declared.clusters
    (port,) = (each for each in made.container("ray-head")["ports"] if each["name"] == "gcs-server")
    if cluster.address != f"{made.name}-head-svc:{port['containerPort']}":
        yield f"the fleet's address {cluster.address} is not the head's Service"
    if made.cluster["spec"]["authOptions"]["mode"] != "token" or cluster.allow_open:
        yield "the cluster is open"
    yield from _token(made, cluster)
    scratch = {
        mount["mountPath"]
        for mount in every(made.cluster["spec"]["workerGroupSpecs"], "volumeMounts")
        for mount in mount
    }
    if cluster.node_dir not in scratch:
        yield f"no worker has {cluster.node_dir}"


def _token(made: Manifest, cluster: Cluster) -> Faults:
    """Who seals the token: under the name that the fleet uses, from the file that is mounted."""
    sealing = made.container("seal-token")
    found = re.fullmatch(r"steer secret set (\S+) < (\S+)/(\S+)", sealing["command"][-1])
    if found is None:
        yield "seal-token seals nothing"
        return
    name, folder, file = found.groups()
    if name != cluster.token:
        yield f"seal-token seals {name}, and the fleet names {cluster.token}"
    mounted = {mount["mountPath"]: mount["name"] for mount in sealing["volumeMounts"]}
    volume: Object = next((each for each in made.head["volumes"] if each["name"] == mounted.get(folder)), {})
    secret = volume.get("secret", {})
    if secret.get("secretName") != made.name or {"key": TOKEN_KEY, "path": file} not in secret.get(
        "items", ()
    ):
        yield f"{folder}/{file} is not the token that KubeRay makes"


def secrets(made: Manifest) -> Faults:
    """The store's password is one for all who use it, and nobody's else."""
    refs = [(ref["name"], ref["key"]) for ref in every(made.objects, "secretKeyRef")]
    if len(refs) < 2 or len(set(refs)) != 1:
        yield f"the store and who uses it have passwords of their own: {refs}"
    for name, _ in refs:
        if name == made.name:
            yield "the store's password is Ray's token"


def volumes(made: Manifest) -> Faults:
    """What is mounted is there, and what is there is mounted; claims and ConfigMaps too."""
    claims = {each["metadata"]["name"] for each in made.of("PersistentVolumeClaim")}
    configs = {each["metadata"]["name"] for each in made.of("ConfigMap")}
    for where, _, pod in made.pods():
        there = {each["name"] for each in pod.get("volumes", ())}
        if where in {each["metadata"]["name"] for each in made.of("StatefulSet")}:
            there |= {
                each["metadata"]["name"]
                for list_ in every(made.objects, "volumeClaimTemplates")
                for each in list_
            }
        mounted = {each["name"] for one in containers(pod) for each in one["volumeMounts"]}
        if there != mounted:
            yield f"{where}: volumes {sorted(there)}, mounted {sorted(mounted)}"
    used = set(every(made.cluster, "claimName"))
    if used != claims:
        yield f"claims {sorted(claims)}, used {sorted(used)}"
    used = {each["name"] for each in every(made.cluster, "configMap")}
    if used != configs:
        yield f"ConfigMaps {sorted(configs)}, used {sorted(used)}"


def beside(made: Manifest) -> Faults:
    """What a driver in another container of the pod needs: folders, processes, the user, the image."""
    ray, steersman = made.container("ray-head"), made.container("steersman")
    if made.head["containers"][0] is not ray:
        yield "the first container is not Ray's"
    for path in SHARED:
        names = [
            {m["mountPath"]: m["name"] for m in each["volumeMounts"]}.get(path) for each in (ray, steersman)
        ]
        volume: Object = next((each for each in made.head["volumes"] if each["name"] == names[0]), {})
        if names[0] != names[1] or "emptyDir" not in volume:
            yield f"{path} is not shared"
    if made.head.get("shareProcessNamespace") is not True:
        yield "the raylet's process is not seen"
    if ray["image"] != steersman["image"]:
        yield "the head's containers may be of two versions of Ray"
    if [each for each in every(made.head["containers"], "runAsUser") if each != 1000]:
        yield "the head's containers are of two users"
    if made.cluster["spec"]["enableInTreeAutoscaling"] is not False:
        yield "the autoscaler takes nodes away"


def home(made: Manifest) -> Faults:
    """The home is a folder in the volume, of one mode for ever, the same for who seals and who runs."""
    homes = {
        variable["value"]
        for name in ("seal-token", "steersman")
        for variable in made.container(name)["env"]
        if variable["name"] == "STEERSMAN_HOME"
    }
    mounts = {m["mountPath"] for m in made.container("steersman")["volumeMounts"] if m["name"] == "home"}
    if len(homes) != 1 or {path.rpartition("/")[0] for path in homes} != mounts:
        yield f"the homes are {sorted(homes)}, in {sorted(mounts)}"
    if made.head["securityContext"].get("fsGroupChangePolicy") != "OnRootMismatch":
        yield "the kubelet opens the home to the group"
    if made.head.get("enableServiceLinks") is not False:
        yield "a Service may set STEERSMAN_PORT"


def gateway(made: Manifest) -> Faults:
    """The gateway's port, its Service and its names; the control plane's port and its probes."""
    _, declared = made.declared()
    steersman = made.container("steersman")
    ports = {each["name"]: each["containerPort"] for each in steersman["ports"]}
    service = made.by_name.get(("Service", "steersman-gateway"), {"spec": {"ports": [{}]}})["spec"]
    (open_,) = service["ports"]
    if not ports.get(open_.get("targetPort")) == open_.get("port") == declared.port:
        yield f"the gateway listens on {declared.port}, its Service leads from {open_} to {ports}"
    if service.get("publishNotReadyAddresses") is not True:
        yield "the gateway is cut off while the control plane is away"
    (space,) = made.of("Namespace")
    long = ("", f".{space['metadata']['name']}", f".{space['metadata']['name']}.svc")
    if not {f"steersman-gateway{tail}" for tail in long} <= set(declared.hosts):
        yield "the gateway refuses its own names"
    (port,) = re.findall(r"steer server --port (\d+)", steersman["command"][-1]) or [""]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if steersman[probe]["exec"]["command"][-1] != f"http://127.0.0.1:{port}/livez":
            yield f"the {probe} asks elsewhere than {port}"


def services(made: Manifest) -> Faults:
    """Every Service leads to a port of one kind of pod, and the store's address is one of them."""
    addresses = set()
    for each in made.of("Service"):
        name, spec = each["metadata"]["name"], each["spec"]
        found = [pod for _, labels, pod in made.pods() if spec["selector"].items() <= labels.items()]
        if len(found) != 1:
            yield f"the Service {name} leads to {len(found)} kinds of pods"
            continue
        there = {port["name"] for one in found[0]["containers"] for port in one.get("ports", ())}
        for port in spec["ports"]:
            addresses.add(f"{name}:{port['port']}")
            if port["targetPort"] not in there:
                yield f"the Service {name} leads to no port {port['targetPort']}"
    if made.cluster["spec"]["gcsFaultToleranceOptions"]["redisAddress"] not in addresses:
        yield "Ray's store is no Service"


def policies(made: Manifest) -> Faults:
    """Every pod is closed but for what a policy lets in, and the ports that are let in are there."""
    for where, labels, pod in made.pods():
        mine = [
            each["spec"] for each in made.of("NetworkPolicy") if _chosen(each["spec"]["podSelector"], labels)
        ]
        if not any(each["policyTypes"] == ["Ingress"] for each in mine):
            yield f"{where} is open to all pods"
        there = {port["containerPort"] for one in pod["containers"] for port in one.get("ports", ())}
        for port in (port for each in mine for rule in each["ingress"] for port in rule.get("ports", ())):
            if port["port"] not in there:
                yield f"{where} lets in {port['port']} and listens on {sorted(there)}"
    head = {"ray.io/cluster": made.name, "ray.io/node-type": "head"}
    store = made.by_name.get(("NetworkPolicy", "steersman-ray-store"), {"spec": {"ingress": []}})["spec"]
    for who in (head, {**head, "ray.io/node-type": "redis-cleanup"}):
        if not any(_chosen(peer["podSelector"], who) for rule in store["ingress"] for peer in rule["from"]):
            yield f"the store is shut to {who['ray.io/node-type']}"


def rights(made: Manifest) -> Faults:
    """As the level `restricted` of Pod Security has it, and with requests and limits."""
    for where, _, pod in made.pods():
        safe = pod["securityContext"]
        if safe.get("runAsNonRoot") is not True or safe["seccompProfile"] != {"type": "RuntimeDefault"}:
            yield f"{where} may be root, or call anything of the kernel"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{where} is given a token of the API server"
        for one in containers(pod):
            own = one["securityContext"]
            if (
                own["allowPrivilegeEscalation"]
                or own["capabilities"] != {"drop": ["ALL"]}
                or "privileged" in own
            ):
                yield f"{where}: {one['name']} has privileges"
            if one["resources"]["requests"].keys() != one["resources"]["limits"].keys():
                yield f"{where}: {one['name']} is without requests or limits"


def sizes(made: Manifest) -> Faults:
    """The node `here` is a part of the container that it is in."""
    declared, _ = made.declared()
    limits = made.container("steersman")["resources"]["limits"]
    cores, memory = quantity(limits["cpu"]), quantity(limits["memory"])
    for node in declared.nodes:
        if node.cpu_milli / 1000 > cores or node.memory_bytes > memory:
            yield f"the node {node.id} is larger than its container"


def versions(made: Manifest) -> Faults:
    """One version of Ray: the extra's, the manifest's, the image's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pinned,) = (each for each in project["optional-dependencies"]["ray"] if each.startswith("ray["))
    version = pinned.rpartition("==")[2]
    if made.cluster["spec"]["rayVersion"] != version:
        yield f"the extra is of Ray {version}, the RayCluster of {made.cluster['spec']['rayVersion']}"
    image = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    if f"FROM rayproject/ray:{version}-py" not in image or f"== '{version}'" not in image:
        yield f"the image is not of Ray {version}"
    images = {
        each.partition("steersman-ray:")[2].removesuffix("-gpu") for each in every(made.cluster, "image")
    }
    if images != {project["version"]}:
        yield f"the images are of {sorted(images)}, Steersman is of {project['version']}"


CHECKS: tuple[Callable[[Manifest], Faults], ...] = (
    namespaces,
    fleet,
    secrets,
    volumes,
    beside,
    home,
    gateway,
    services,
    policies,
    rights,
    sizes,
    versions,
)


def faults(objects: list[Object]) -> list[str]:
    """Everything that does not fit."""
    made = Manifest(objects)
    return [f"{check.__name__}: {fault}" for check in CHECKS for fault in check(made)]
