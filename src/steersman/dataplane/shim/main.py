"""Entry point: ``python -I -S main.py <rank folder> <payload descriptor> <ready descriptor> [<lifeline>]``.

1. Fork and let the first process leave, so that the spawner has nothing to wait for and no signal to it, no
   Ctrl-C and no hang-up of its terminal reaches the shim (the spawner has begun a new session).
2. Read the payload {"secrets": [[variable, value]], "conclude": bool, "lifeline_ms"?: int} to its end. A
   payload cut short means that the spawner died: nothing has begun, so leave; a later start begins anew.
3. Take the lock, or leave: another shim has the rank.
4. With ``exit.json`` there is nothing to do. With ``started.json`` an earlier shim was killed: `lost`.
   "conclude" asks for an end only: then a rank that never began is recorded as such.
5. Supervise, store the artifacts, record the end, ring, leave. The lock falls with the process.
"""

# ruff: noqa: PTH100, PTH118, PTH120 - pathlib costs every shim 3 ms and 0.5 MB

import contextlib
import json
import os
import sys
from typing import Any

# Run as a file by an isolated interpreter, this is the only way to find the package. Appended, so that
# nothing beside Steersman can stand in for the standard library.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
if ROOT not in sys.path:
    sys.path.append(ROOT)

from steersman.dataplane.shim import cgroup, files, lost, procs, program  # noqa: E402 - needs the path
from steersman.dataplane.shim.finish import finish  # noqa: E402 - needs the path
from steersman.dataplane.shim.supervise import Lifeline, Supervisor  # noqa: E402 - needs the path
from steersman.dataplane.shim.tree import Tree  # noqa: E402 - needs the path
from steersman.ports import run_dir  # noqa: E402 - needs the path

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
NONCE_BYTES = 16


class Ready:
    """The one answer to the spawner. It may be gone, which changes nothing here."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, answer: bytes) -> None:
        """Answer, if that has not been done."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            os.write(self._descriptor, answer)
        os.close(self._descriptor)
        self._descriptor = -1


def read_payload(descriptor: int) -> dict[str, Any] | None:
    """What the spawner hands over in memory; None when it died before it had written all."""
    with open(descriptor, "rb") as pipe:
        data = pipe.read(PAYLOAD_BYTES_MAX)
    try:
        payload = json.loads(data)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def run(rank_dir: str, payload: dict[str, Any], ready: Ready, lifeline: int | None = None) -> None:
    """The shim's life after it has left its spawner. Raises OSError when it could not begin."""
    lock = files.take_lock(os.path.join(rank_dir, run_dir.LOCK))
    if lock is None:
        ready.say(run_dir.READY_HELD)
        return
    order = files.read_json(os.path.join(rank_dir, run_dir.ORDER))
    if files.read_json(os.path.join(rank_dir, run_dir.EXIT)) is not None:
        ready.say(run_dir.READY_ENDED)
    elif order is None:
        ready.say(run_dir.READY_FAILED + b"order.json is missing or damaged")
    else:
        finish(order, _live(order, payload, ready, lifeline))
        ready.say(run_dir.READY_ENDED)
    os.close(lock)


def _live(
    order: dict[str, Any], payload: dict[str, Any], ready: Ready, lifeline: int | None
) -> dict[str, Any]:
    """Whatever has to be lived through until the rank has ended; its end."""
    started = files.read_json(os.path.join(order["rank_dir"], run_dir.STARTED))
    if started is not None:
        return lost.conclude(order, started)
    if payload.get("conclude"):
        return {
            "exit_code": None,
            "signal": None,
            "cause": "start-failed",
            "detail": "stopped before the program began",
            "stop_delivered": True,
        }
    subreaper = procs.become_subreaper()
    tree = Tree(order, cgroup.machine_mounts(), subreaper=subreaper)
    nonce = os.urandom(NONCE_BYTES).hex()
    env = program.environment(order, dict(payload["secrets"]), nonce, os.environ)
    hangs_on = None if lifeline is None else Lifeline(lifeline, int(payload["lifeline_ms"]))
    supervisor = Supervisor(order, env, tree, lambda: ready.say(run_dir.READY_STARTED), hangs_on)
    try:
        record = supervisor.run()
    finally:
        removed = tree.remove()
    if not removed:
        record["detail"] = "; ".join([*filter(None, [record["detail"]]), "its control group would not go"])
    return record


def main(argv: list[str]) -> None:
    """Leave the spawner, then live."""
    rank_dir, payload_descriptor, ready_descriptor = argv[1], int(argv[2]), int(argv[3])
    lifeline = int(argv[4]) if len(argv) > 4 else None
    if os.fork() != 0:
        os._exit(0)
    for descriptor in (payload_descriptor, ready_descriptor, *([] if lifeline is None else [lifeline])):
        os.set_inheritable(descriptor, False)
    ready = Ready(ready_descriptor)
    payload = read_payload(payload_descriptor)
    if payload is None:
        return
    try:
        run(rank_dir, payload, ready, lifeline)
    except OSError as failure:
        ready.say(run_dir.READY_FAILED + str(failure).encode())
        raise


if __name__ == "__main__":
    main(sys.argv)
