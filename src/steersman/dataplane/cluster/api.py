"""The engine, Ray, as fence, hosts and bridge use it: the only module that imports it.

What it names is public API of Ray, but for `ray.experimental.internal_kv` (where the fence keeps its epoch:
the only store that lives as long as the cluster), the upload of a package for a host that is made later, for
which Ray has none, and the two calls by which it knocks at a head. Tested with the version in the extra
`ray`; another one is refused by Ray itself, as both ends must be of one version.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import ray
from ray._private.runtime_env import packaging
from ray.core.generated import ray_client_pb2
from ray.experimental import internal_kv
from ray.util.client.common import ClientActorHandle
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from steersman.dataplane.cluster.words import NAMESPACE
from steersman.model.errors import DriverError

WHO_ARE_YOU = "/ray.rpc.NodeInfoGcsService/GetClusterId", b""
PING = "/ray.rpc.RayletDriver/ClusterInfo", ray_client_pb2.ClusterInfoRequest(type="PING").SerializeToString()
"""What to call, and with what: of a head, and of one that is reached by Ray Client."""
CLIENT = "ray://"
ADDRESSES = "write `HOST:6379` on one of the cluster's machines, and `ray://HOST:10001` on any other"
PROBE_SECONDS_MAX = 5.0
HEAD = "node:__internal_head__"
PIN_SECONDS = 600
CONCURRENT_CALLS_MAX = 256
KV_NAMESPACE = b"steersman"

ERRORS = (ray.exceptions.RayError, TimeoutError, asyncio.TimeoutError, ConnectionError)
"""What a call of an actor may raise: it is gone, its environment could not be made, it does not answer, or
this client is cut off."""

JOIN_ERRORS = (ray.exceptions.RayError, OSError, RuntimeError, ValueError, TimeoutError, AssertionError)
"""What joining a cluster may raise: Ray checks some of what it finds there by assertions."""

Handle = Any
"""An actor's handle: Ray makes its methods at run time."""


def probe(address: str, token: str) -> None:
    """Ask the head who it is, with a token or with none. Raises DriverError when it refuses or is silent.

    Joining tells neither apart, and takes a minute to fail.
    """
    method, question = PING if address.startswith(CLIENT) else WHO_ARE_YOU
    header = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address.removeprefix(CLIENT)) as channel:
        ask = channel.unary_unary(method)
        try:
            ask(question, timeout=PROBE_SECONDS_MAX, metadata=header)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise DriverError(
                    f"the cluster at {address} {'refuses the token' if token else 'asks for a token'}",
                    hint="steer secret set NAME, with the cluster's token, and write `token: NAME`",
                    code="cluster-token",
                ) from error
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                what = "server of Ray Client" if method is PING[0] else "head of a cluster"
                raise DriverError(
                    f"what answers at {address} is no {what}", hint=ADDRESSES, code="cluster-unreachable"
                ) from error
            raise DriverError(
                f"the cluster at {address} cannot be reached: {_reason(error.details())}",
                hint="is it up, and is the address that of its head as this machine reaches it?",
                code="cluster-unreachable",
            ) from error


def connect(address: str, packages: Sequence[str]) -> dict[str, str]:
    """Join a cluster as a driver that brings these packages. Raises whatever Ray raises; see `refused`."""
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    context = ray.init(
        address=address,
        namespace=NAMESPACE,
        runtime_env={"py_modules": list(packages)},
        **({} if address.startswith(CLIENT) else quiet),
    )
    dashboard = getattr(context, "dashboard_url", None) or ""
    return {"dashboard": dashboard, "ray": ray.__version__}


def _reason(details: str | None) -> str:
    """The last of the causes that gRPC strings together."""
    return (details or "no answer").rpartition("remote host: ")[2].rpartition("): ")[2]


def token() -> str:
    """The cluster's token, as Ray itself finds it; empty when this process was given none."""
    return os.environ.get("RAY_AUTH_TOKEN", "")


def disconnect() -> None:
    """Leave; detached actors stay."""
    ray.shutdown()


async def value(ref: Any, timeout_seconds: float) -> Any:
    """What a call gives. Raises TimeoutError, Ray's errors."""
    return await asyncio.wait_for(asyncio.wrap_future(ref.future()), timeout_seconds)


def wait(ref: Any, timeout_seconds: float) -> Any:
    """The same for a thread."""
    return ray.get(ref, timeout=timeout_seconds)


def told(error: BaseException, what: str) -> DriverError:
    """An error of the engine in words."""
    if isinstance(error, ray.exceptions.RuntimeEnvSetupError):
        return DriverError(
            f"{what}: its environment could not be built: {_last_line(str(error))}",
            hint="mend the cluster's `runtime_env`; `ray logs` on its head has all of it",
            code="environment-failed",
        )
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return DriverError(f"{what}: {_last_line(str(error))}", code="host-gone")
    late = TimeoutError | asyncio.TimeoutError | ConnectionError | ray.exceptions.GetTimeoutError
    if isinstance(error, late):
        return DriverError(f"{what}: no answer in time", hint="it is tried again", code="no-answer")
    return DriverError(f"{what}: {_last_line(str(error))}", code="cluster-error")


def refused(error: BaseException, address: str) -> DriverError:
    """Why a cluster could not be joined."""
    text = str(error)
    if "ersion mismatch" in text:
        return DriverError(
            f"the cluster at {address} is of another version: {' '.join(text.split())[:300]}",
            hint=f"this is Ray {ray.__version__}; install the cluster's version, or name an interpreter that "
            "has it with the cluster's `python`",
            code="cluster-version",
        )
    up = "is it up, and is the address that of its head as this machine reaches it?"
    return DriverError(
        f"the cluster at {address} cannot be joined: {_last_line(text)}",
        hint=up if address.startswith(CLIENT) else f"{up} {ADDRESSES}",
        code="cluster-unreachable",
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it did not say why"


def find(name: str) -> Handle | None:
    """A live named actor; None: the cluster knows none of that name. Raises DriverError when cut off."""
    try:
        handle = ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None
    except ConnectionError as error:
        raise told(error, "the cluster's head") from error
    if isinstance(handle, ClientActorHandle):
        # Else Ray Client would run a task on the cluster to learn this, at the first call, and wait for it.
        handle._method_num_returns = {"do": 1}  # noqa: SLF001 - it has no other way
        handle._method_signatures = {"do": inspect.signature(_do)}  # noqa: SLF001 - as above
    return handle


def _do(verb: str, arguments: Sequence[Any]) -> None:
    """As the actors' one method that a bridge calls."""


def names() -> list[str]:
    """The names of all live named actors of Steersman's."""
    listed = ray.util.list_named_actors(all_namespaces=True)
    return [each["name"] for each in listed if each["namespace"] == NAMESPACE]


def nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, those that it declared dead included."""
    return [
        {
            "id": node["NodeID"],
            "alive": bool(node["Alive"]),
            "ip": node["NodeManagerAddress"],
            "port": int(node["NodeManagerPort"]),
            "host": node["NodeManagerHostname"],
            "resources": dict(node["Resources"]),
            "labels": dict(node.get("Labels") or {}),
        }
        for node in ray.nodes()
    ]


def node_id() -> str:
    """The node that this actor is on."""
    return str(ray.get_runtime_context().get_node_id())


def node_ip() -> str:
    """The address by which the cluster reaches this node."""
    return str(ray.util.get_node_ip_address())


def make_fence(actor: type, name: str, *arguments: Any) -> Handle:
    """The fence of that name, found or made: on the head node, and made again when its process dies."""
    options = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "resources": {HEAD: 0.001},
        "max_restarts": -1,
        "max_concurrency": CONCURRENT_CALLS_MAX,
    }
    return ray.remote(actor).options(**options).remote(*arguments)


def make_host(actor: type, name: str, wish: Mapping[str, Any], *arguments: Any) -> Handle:
    """The host of that name, found or made on a node, in a reservation if `wish` names one."""
    where = (
        NodeAffinitySchedulingStrategy(wish["node_id"], soft=False)
        if wish["group"] is None
        else PlacementGroupSchedulingStrategy(wish["group"], placement_group_bundle_index=wish["bundle"])
    )
    resources = dict(wish["resources"])
    options = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": resources.pop("CPU", 0),
        "num_gpus": resources.pop("GPU", 0),
        "memory": int(resources.pop("memory", 0)) or None,
        "resources": resources,
        "max_restarts": 0,
        "max_concurrency": CONCURRENT_CALLS_MAX,
        "scheduling_strategy": where,
        "runtime_env": dict(wish["environment"]),
    }
    return ray.remote(actor).options(**options).remote(*arguments)


def end(handle: Handle) -> None:
    """End an actor's process; it is not made again."""
    ray.kill(handle, no_restart=True)


def group(name: str) -> PlacementGroup | None:
    """The reservation of that name."""
    try:
        return get_placement_group(name)
    except ValueError:
        return None


def groups() -> list[str]:
    """The names of all reservations that were not given back."""
    listed = placement_group_table().values()
    return [each["name"] for each in listed if each["state"] != "REMOVED"]


def reserve(name: str, bundles: Sequence[Mapping[str, float]], nodes_of: Sequence[str]) -> PlacementGroup:
    """Ask for room for all ranks of a run at once, each on its node."""
    return placement_group(
        [dict(bundle) for bundle in bundles],
        strategy="PACK",
        name=name,
        lifetime="detached",
        bundle_label_selector=[{"ray.io/node-id": node} for node in nodes_of],
    )


def granted(reservation: PlacementGroup, seconds: float) -> bool:
    """Whether the room is there within so long; blocks."""
    return bool(reservation.wait(seconds))


def release(reservation: PlacementGroup) -> None:
    """Give the room back; what still runs in it is ended."""
    remove_placement_group(reservation)


def package_uri(data: bytes) -> str:
    """What a package of that content is called."""
    return f"gcs://_ray_pkg_{hashlib.sha256(data).hexdigest()[:40]}.zip"


def upload(uri: str, data: bytes) -> None:
    """Give the cluster a package for hosts to come. Raises DriverError."""
    try:
        packaging.pin_runtime_env_uri(uri, expiration_s=PIN_SECONDS)
        if not packaging.package_exists(uri):
            packaging.upload_package_to_gcs(uri, data)
    except (RuntimeError, ValueError) as error:
        raise DriverError(
            f"the cluster does not take the workdir: {error}",
            hint="keep data out of the workdir and read it by its absolute path",
        ) from error


def uploaded(uri: str) -> bool:
    """Whether the cluster has a package; keeps it for a while."""
    packaging.pin_runtime_env_uri(uri, expiration_s=PIN_SECONDS)
    return bool(packaging.package_exists(uri))


def remember(key: str, text: str) -> None:
    """Keep a word for as long as the cluster lives."""
    internal_kv._internal_kv_put(  # noqa: SLF001 - Ray has no public store of words
        key.encode(), text.encode(), overwrite=True, namespace=KV_NAMESPACE
    )


def remembered(key: str) -> str:
    """A word that was kept; empty when there is none."""
    found = internal_kv._internal_kv_get(  # noqa: SLF001 - as above
        key.encode(), namespace=KV_NAMESPACE
    )
    return "" if found is None else found.decode()
