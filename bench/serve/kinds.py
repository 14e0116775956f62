"""The bare loop and the peers: how each is started and spoken to, as its own documentation advises.

Theory: only what a documentation names as the way to throughput is set: batching and its wait, the fast paths
that exist, no access logs, one worker a server, for each has one model on one thread. Waits were tried from 0
to 10 ms on two cores, and the best requests per CPU-second kept.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from bench.serve import environments, models
from bench.serve.servers import (
    CHANGE_SECONDS_MAX,
    HERE,
    Json,
    Kind,
    Prepare,
    Running,
    Site,
    Wanted,
    free_port,
)

PEERS = HERE / "peers"


def _tell(server: Running, wanted: Wanted) -> None:
    server.tell(msgspec.to_builtins(wanted), CHANGE_SECONDS_MAX)


def _peer_path(name: str) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join((str(PEERS / name), str(PEERS)))}


def _bare(_site: Site) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "bench.serve.bare"], {"PYTHONPATH": str(HERE.parent.parent)}


def _litserve(_site: Site) -> tuple[list[str], dict[str, str]]:
    program = str(PEERS / "litserve" / "app.py")
    return [str(environments.python("litserve")), program], _peer_path("litserve")


def _bentoml(site: Site) -> tuple[list[str], dict[str, str]]:
    program = str(environments.python("bentoml").with_name("bentoml"))
    command = [program, "serve", "service:Model", "--host", "127.0.0.1", "--port", str(site.port)]
    variables = {
        "BENTOML_HOME": str(site.folder / "home"),
        "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",
    }
    return [*command, "--working-dir", str(PEERS / "bentoml")], {**_peer_path("bentoml"), **variables}


def _mlserver(site: Site) -> tuple[list[str], dict[str, str]]:
    settings = {
        "host": "127.0.0.1",
        "http_port": site.port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": "bench",
        "implementation": "runtime.Model",
        "max_batch_size": site.batch,
        "max_batch_time": 0.001,
    }
    (site.folder / "settings.json").write_bytes(msgspec.json.encode(settings))
    (site.folder / "model-settings.json").write_bytes(msgspec.json.encode(model))
    program = str(environments.python("mlserver").with_name("mlserver"))
    return [program, "start", str(site.folder)], _peer_path("mlserver")


def _ray(variables: Mapping[str, str]) -> Prepare:
    def prepare(site: Site) -> tuple[list[str], dict[str, str]]:
        own = {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(site.folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(site.folder / "haproxy.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(site.folder / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(site.folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(site.folder / "haproxy.state"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }
        program = str(PEERS / "ray_serve" / "app.py")
        command = [str(environments.python("ray_serve")), program]
        return command, {**_peer_path("ray_serve"), **own, **variables}

    return prepare


def _ask_bentoml(row: models.Row) -> Json:
    return {"rows": [row]}


def _read_bentoml(answer: Json) -> Mapping[str, Any]:
    rows: list[Mapping[str, Any]] = answer
    return rows[0]


def _shape(value: Any) -> list[int]:
    return [len(value), *_shape(value[0])] if isinstance(value, list) else []


def ask_open_inference(row: models.Row) -> Json:
    """The Open Inference Protocol's request, data as nested lists."""
    inputs = [
        {
            "name": name,
            "datatype": "INT64" if name.startswith(("input_", "attention_")) else "FP32",
            "shape": [1, *_shape(value)],
            "data": [value],
        }
        for name, value in row.items()
    ]
    return {"inputs": inputs}


def read_open_inference(answer: Json) -> Mapping[str, Any]:
    """Its answer by output; data is flat, so a vector of one is a scalar."""
    found = {}
    for each in answer["outputs"]:
        found[each["name"]] = np.reshape(each["data"], each["shape"])[0]
    return found


KINDS: tuple[Kind, ...] = (
    Kind(name="bare loop", prepare=_bare),
    Kind(name="ray serve", prepare=_ray({}), environment="ray_serve", lines=True, change=_tell),
    Kind(
        name="ray serve fast",
        prepare=_ray({"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}),
        environment="ray_serve",
        lines=True,
        change=_tell,
    ),
    Kind(name="litserve", prepare=_litserve, environment="litserve"),
    Kind(name="bentoml", prepare=_bentoml, environment="bentoml", ask=_ask_bentoml, read=_read_bentoml),
    Kind(
        name="mlserver",
        prepare=_mlserver,
        environment="mlserver",
        path="/v2/models/bench/infer",
        ask=ask_open_inference,
        read=read_open_inference,
    ),
)
"""In the order of the table; Steersman is in steersman_server."""
