"""What tests ask of a cluster with Ray's own words: `python program.py ADDRESS VERB WORD…`, answered as JSON.

It runs in Ray's environment, in the head's namespace; so it imports nothing of the tests.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from ray._private import utils
from ray.util.placement_group import get_placement_group, placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

WAIT_SECONDS_MAX = 60.0
HEAD = "node:__internal_head__"


class Counter:
    """An actor that shows whether it is still the same one."""

    def __init__(self) -> None:
        self._calls = 0

    def call(self) -> list[int]:
        self._calls += 1
        return [os.getpid(), self._calls]


def nodes() -> Any:
    """All that the cluster knows, dead ones too."""
    shown = ("NodeID", "NodeManagerAddress", "Alive", "Resources", "Labels")
    return [{name: node[name] for name in shown} for node in ray.nodes()]


def leave(node_id: str) -> Any:
    """Two detached actors, one in a reservation on a node and one on the head; their processes."""
    room = placement_group(
        [{"CPU": 1}], name="room", lifetime="detached", bundle_label_selector=[{"ray.io/node-id": node_id}]
    )
    assert room.wait(WAIT_SECONDS_MAX)
    where = PlacementGroupSchedulingStrategy(room, 0)
    counter = ray.remote(Counter)
    kept = counter.options(name="kept", lifetime="detached", num_cpus=1, scheduling_strategy=where).remote()
    made_anew = {"max_restarts": -1, "num_cpus": 0, "resources": {HEAD: 0.001}}
    floating = counter.options(name="floating", lifetime="detached", **made_anew).remote()
    return [ray.get(actor.call.remote(), timeout=WAIT_SECONDS_MAX) for actor in (kept, floating)]


def look() -> Any:
    """What is left of the two and of the reservation."""
    return {"kept": called("kept"), "floating": called("floating"), "room": room_state()}


def called(name: str) -> list[int] | None:
    try:
        return list(ray.get(ray.get_actor(name).call.remote(), timeout=WAIT_SECONDS_MAX))
    except (ValueError, ray.exceptions.RayError):
        return None


def room_state() -> str:
    try:
        return str(placement_group_table(get_placement_group("room"))["state"])
    except ValueError:
        return ""


def dead(node_id: str) -> Any:
    """Wait until the cluster has declared a node dead."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == node_id):
            return True
        time.sleep(0.1)
    return False


def left() -> Any:
    """Steersman's named actors, and reservations that are not given back."""
    named = ray.util.list_named_actors(all_namespaces=True)
    groups = placement_group_table().values()
    return {
        "actors": [each["name"] for each in named if each["namespace"] == "steersman"],
        "groups": [each["name"] for each in groups if each["state"] != "REMOVED"],
    }


VERBS: dict[str, Callable[..., Any]] = {
    "nodes": nodes,
    "leave": leave,
    "look": look,
    "dead": dead,
    "left": left,
}


def main(address: str, verb: str, *words: str) -> None:
    if verb == "as-version":
        version = (words[0], platform.python_version())
        utils.compute_version_info = lambda: version
        verb, words = "nodes", ()
    try:
        ray.init(
            address=address,
            namespace="tests",
            log_to_driver=False,
            configure_logging=False,
            logging_level="ERROR",
        )
        said = VERBS[verb](*words)
    except (OSError, RuntimeError) as error:
        said = {"refused": type(error).__name__, "words": str(error)}
    sys.stdout.write(f"\n{json.dumps(said)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
