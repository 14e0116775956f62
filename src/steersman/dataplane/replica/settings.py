"""What the environment tells a replica, read once and checked.

The driver writes these variables, so a wrong one is a fault of wiring or of a newer control plane: it is said
by name. Unknown keys of STEERSMAN_REPLICA are ignored.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from steersman.dataplane.replica.errors import LoadError
from steersman.ports import peers, run_dir

ENV_MODEL = run_dir.ENV_INPUT_PREFIX + "MODEL"
CPU_MILLI_DEFAULT = 1_000
BATCH_ROWS_MAX = 65_535
"""The most rows a frame can count."""
MS_MAX = 86_400_000
LOAD_TIMEOUT_MS = 600_000
"""How long loading and warming may take unless ``load_timeout_ms`` says otherwise: ten minutes."""
THREADS_MAX = 1_024
_HINT = "this variable is written by Steersman; start the service with `steer up`"


class Settings(NamedTuple):
    """One replica. `model` is the path of the ONNX file, `target` the ``module:attribute`` of a callable.
    `listen` is the IP address to listen on; empty: on a socket in the run's folder."""

    run_dir: str
    run: str
    doorbell: str
    service: str
    revision: int
    kind: str
    target: str
    model: str
    threads: int
    batch_size_max: int
    batch_timeout_ms: int
    load_timeout_ms: int
    listen: str = ""


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from STEERSMAN_* variables. Raises LoadError naming the variable that is wrong."""
    folder = environ.get(run_dir.ENV_RUN_DIR, "")
    if not folder:
        raise LoadError(f"{run_dir.ENV_RUN_DIR} is not set", hint=_HINT)
    try:
        asked = json.loads(environ.get(run_dir.ENV_REPLICA, ""))
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise LoadError(f"{run_dir.ENV_REPLICA} is no JSON object", hint=_HINT)
    cpu_milli = environ.get(run_dir.ENV_CPU_MILLI, "")
    cores = (
        int(cpu_milli) // 1000 if cpu_milli.isascii() and cpu_milli.isdigit() else CPU_MILLI_DEFAULT // 1000
    )
    settings = Settings(
        run_dir=folder,
        run=environ.get(run_dir.ENV_RUN_ID, ""),
        doorbell=environ.get(run_dir.ENV_DOORBELL, ""),
        service=_text(asked, "service"),
        revision=_number(asked, "revision", 0, least=0, most=2**53),
        kind=_text(asked, "kind"),
        target=_text(asked, "target"),
        model=environ.get(ENV_MODEL, ""),
        threads=min(_number(asked, "threads", max(cores, 1), least=1, most=THREADS_MAX), THREADS_MAX),
        batch_size_max=_number(asked, "batch_size_max", 1, least=1, most=BATCH_ROWS_MAX),
        batch_timeout_ms=_number(asked, "batch_timeout_ms", 30_000, least=1, most=MS_MAX),
        load_timeout_ms=_number(asked, "load_timeout_ms", LOAD_TIMEOUT_MS, least=1, most=MS_MAX),
        listen=_listen(asked.get("listen")),
    )
    _check_kind(settings)
    return settings


def _check_kind(settings: Settings) -> None:
    if settings.kind not in ("onnx", "callable"):
        raise LoadError(
            f"{run_dir.ENV_REPLICA} has the kind {settings.kind!r}", hint="onnx and callable are known"
        )
    if settings.kind == "onnx" and not settings.model:
        raise LoadError(f"{ENV_MODEL} is not set, so there is no model to load", hint=_HINT)
    if settings.kind == "callable" and not settings.target:
        raise LoadError(f"{run_dir.ENV_REPLICA} names no target", hint="write it as module:attribute")


def _listen(value: object) -> str:
    """The address of ``{"address": …}``: one that a gateway can dial, so not that of every interface."""
    if value is None:
        return ""
    address = value.get("address") if isinstance(value, dict) else None
    if isinstance(address, str) and peers.split_address(peers.join_address(address, 1)):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if any(socket.inet_pton(family, address)):
            return address
    raise LoadError(f"{run_dir.ENV_REPLICA}: listen has no IP address of this machine", hint=_HINT)


def _text(asked: Mapping[str, Any], key: str) -> str:
    value = asked.get(key)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise LoadError(f"{run_dir.ENV_REPLICA}: {key} is no text", hint=_HINT)


def _number(asked: Mapping[str, Any], key: str, default: int, *, least: int, most: int) -> int:
    value = asked.get(key)
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise LoadError(f"{run_dir.ENV_REPLICA}: {key} is no whole number from {least} to {most}", hint=_HINT)
