"""The last things a shim does: artifacts into the store, ``exit.json``, the doorbell.

The order matters. Artifacts are stored first, so that whoever reads the end finds them, also when the
control plane was away. The end is durable before the lock falls, so that "no lock and no end" means
that a shim was killed. A full disk is waited for, within a limit: meanwhile the rank counts as running,
which destroys nothing.
"""

# ruff: noqa: PTH100, PTH112, PTH118, PTH120, PTH123 - pathlib costs every shim 3 ms and 0.5 MB

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from steersman.dataplane.shim import files
from steersman.ports import run_dir

WRITE_SECONDS_MAX = 3_600.0
WRITE_RETRY_SECONDS = 1.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
STORE_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "store.py")


def finish(order: Mapping[str, Any], record: dict[str, Any]) -> None:
    """Store what is declared, then record the end and tell the control plane. Raises OSError at the limit."""
    record["artifacts"] = []
    if record["cause"] == "exited" and record["exit_code"] == 0 and order["rank"] == 0 and order["artifacts"]:
        answer = store(order)
        record["artifacts"] = answer["artifacts"]
        record["detail"] = "; ".join([*filter(None, [record["detail"]]), *answer["problems"]])
    record["at_ms"] = files.now_ms()
    deadline = time.monotonic() + WRITE_SECONDS_MAX
    while True:
        try:
            files.write_json(os.path.join(order["rank_dir"], run_dir.EXIT), record)
        except OSError:
            if time.monotonic() > deadline or not os.path.isdir(order["rank_dir"]):
                raise
            time.sleep(WRITE_RETRY_SECONDS)
        else:
            break
    files.ring(order["home"])


def store(order: Mapping[str, Any]) -> dict[str, Any]:
    """Run the store process (see `store`); its death is a problem that is told, not one that is passed on."""
    request = {
        "output": order["output_dir"],
        "store": os.path.join(order["home"], run_dir.ARTIFACTS, "sha256"),
        "artifacts": order["artifacts"],
    }
    asked_read, asked_write = os.pipe()
    told_read, told_write = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", STORE_FILE],
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, asked_read, 0), (os.POSIX_SPAWN_DUP2, told_write, 1)],
    )
    os.close(asked_read)
    os.close(told_write)
    try:
        with open(asked_write, "wb") as asked, open(told_read, "rb") as told:
            asked.write(json.dumps(request).encode())
            asked.close()
            answer = json.loads(told.read(ANSWER_BYTES_MAX))
    except (OSError, ValueError):
        answer = None
    _, status = os.waitpid(pid, 0)
    if isinstance(answer, dict) and status == 0:
        return answer
    return {"artifacts": [], "problems": [f"the artifact store ended with status {status}"]}
