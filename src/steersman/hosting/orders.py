"""``order.json``: everything a shim needs of one rank that is no secret, from the order that a driver got.

Where things lie is for whoever hosts the rank to say: on this machine they are folders of the home, on
another one folders there.
"""

from pathlib import Path
from typing import Any

import msgspec

from steersman.hosting.claim import ORDER_FORMAT
from steersman.hosting.devices import device_envs
from steersman.ports import run_dir
from steersman.ports.driver import StartOrder


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Absolute paths on the machine that hosts the rank. `trainer` is what joins the program's PYTHONPATH;
    `listen` is the address at which a replica is reached; empty: at its socket."""

    home: str
    rank_dir: str
    workdir: str
    output: str
    checkpoints: str
    trainer: str | None
    inputs: tuple[tuple[str, str], ...]
    listen: str = ""


def places(home: Path, folder: Path, order: StartOrder) -> Places:
    """Where things of a rank lie in a home, the trainer package and the workdir not yet put there."""
    return Places(
        home=str(home),
        rank_dir=str(folder),
        workdir=str(home / run_dir.WORKDIRS / declaration(order)),
        output=str(folder.parent / run_dir.OUTPUT),
        checkpoints=str(home / run_dir.CHECKPOINTS / f"{order.workload}-{order.lineage}"),
        trainer=None,
        inputs=order.input_paths,
    )


def declaration(order: StartOrder) -> str:
    """The name of the working folder that all runs of one declaration share."""
    return f"{order.workload}-{order.generation}"


def body(order: StartOrder, where: Places, home_id: str, command: str, driver: str) -> dict[str, Any]:
    """The file's content."""
    job = order.job
    return {
        "format": ORDER_FORMAT,
        "driver": driver,
        "cluster": order.cluster,
        "home": where.home,
        "home_id": home_id,
        "rank_dir": where.rank_dir,
        "run": order.key.run,
        "rank": order.key.rank,
        "num_ranks": order.num_ranks,
        "workload": order.workload,
        "generation": order.generation,
        "decision": order.decision,
        "epoch": order.epoch,
        "setup": job.setup,
        "command": command,
        "envs": (
            *job.envs,
            *device_envs(order.node_devices, order.placement),
            *_replica_env(order, where.listen),
        ),
        "workdir": where.workdir,
        "output_dir": where.output,
        "checkpoint_dir": where.checkpoints,
        "checkpoint_keep": job.checkpoint.keep_last,
        "checkpoint_interval_ms": order.checkpoint_interval_ms,
        "inputs": where.inputs,
        "artifacts": [(artifact.name, artifact.path) for artifact in job.artifacts],
        "cpu_milli": order.placement.cpu_milli,
        "memory_bytes": order.placement.memory_bytes,
        "trainer_dir": where.trainer,
    }


def _replica_env(order: StartOrder, listen: str) -> tuple[tuple[str, str], ...]:
    serves = order.job.replica
    if serves is None:
        return ()
    threads = max(order.placement.cpu_milli // 1000, 1)
    value = {**msgspec.to_builtins(serves), "threads": threads}
    if listen:
        value["listen"] = {"address": listen}
    return ((run_dir.ENV_REPLICA, msgspec.json.encode(value).decode()),)
