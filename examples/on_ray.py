"""What `make run-ray` runs: 01-train and 02-serve on a real Ray cluster of three nodes on this machine.

The declarations are those of `make run` but for `infra: ray`. A node is killed in the middle of the training,
which goes on elsewhere from its newest checkpoint; then the trained model is served from the cluster, and
under load a replica is killed and the service declared anew. In the end the model is checked, every request
has an answer, and nothing is left on the cluster. Nothing here decides anything: this script declares, kills
and watches.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE), str(HERE / "01-train"), str(HERE / "02-serve")]
from digits import load_split  # noqa: E402 - the held-out images are those of 01-train
from load import Reply, fire, summary  # noqa: E402 - as in 02-serve
from steps import STEER, Steps  # noqa: E402 - what the examples share
from tests.ray.cluster import RayCluster, Shape  # noqa: E402 - the cluster that the tests use

RAY = ROOT / ".venvs" / "ray" / "bin"
TRAINING, SERVICE = "digits", "read-digits"
RATE, SECONDS = 100, 16
ACCURACY_MIN = 0.97
JOIN_SECONDS_MAX = 60
FLEET = """kind: fleet
name: laptop-and-cluster
nodes:
  - {{name: here, cpus: 1, memory: 2GB}}
clusters:
  - {{name: gpu, infra: ray, address: "{address}", token: ray-token, python: {python}}}
"""


def on_ray(path: Path) -> str:
    """An example's declaration, unchanged but for `infra`."""
    text = path.read_text()
    changed = text.replace("resources:\n", "resources:\n  infra: ray\n")
    assert changed.count("infra: ray") == 1, path
    return changed


def up(text: str, folder: Path) -> None:
    """Declare a text as if it were a file of that folder."""
    command = [STEER, "up", "-", "--no-wait"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, cwd=folder)
    if done.returncode != 0:
        sys.exit(f"error: steer up failed\n{done.stderr}")


def line(rows: dict[str, Any]) -> str:
    """Both in a few words."""
    parts = []
    if (row := rows.get(TRAINING)) is not None:
        step = "" if row["step"] is None else f" step {row['step']:.0f}/{row['steps_total']:.0f}"
        where = f" on {', '.join(row['nodes'])}" if row["nodes"] else ""
        parts.append(f"{TRAINING}: {row['run_state'] or row['phase']}{step}{where}")
    if (row := rows.get(SERVICE)) is not None:
        parts.append(f"{SERVICE}: {row['ready']} of {row['target']} ready")
    return "   ".join(parts)


def train(steps: Steps, cluster: RayCluster) -> dict[str, Any]:
    """The training, whose node is killed."""
    steps.say(f"declaring {TRAINING} with `infra: ray`")
    up(on_ray(HERE / "01-train" / "train.yaml"), HERE / "01-train")
    rows = steps.watch(lambda rows: (rows[TRAINING]["saved_step"] or 0) > 0, line, "a checkpoint is saved")
    (name,) = rows[TRAINING]["nodes"]
    victim = next(node for node in cluster.nodes if node.address.replace(".", "-") in name)
    steps.say(f"killing the node {name}, all of its processes")
    began = time.monotonic()
    cluster.kill(victim)
    steps.watch(
        lambda rows: rows[TRAINING]["run_state"] == "running" and rows[TRAINING]["nodes"] != [name],
        line,
        "the training goes on elsewhere",
    )
    back = time.monotonic() - began
    steps.say(f"it runs again, {back:.0f} s after its node was killed; starting the node again")
    cluster.start_again(victim)
    rows = steps.watch(lambda rows: rows[TRAINING]["settled"], line, "the training is done")
    artifacts = {item["name"]: item for item in steps.steer("status", TRAINING)["artifacts"]}
    paths = [artifacts[name]["path"] for name in ("model", "metrics")]
    done = subprocess.run(
        [sys.executable, HERE / "01-train" / "verify.py", *paths, "--json"], capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"error: the exported model did not pass\n{done.stdout}{done.stderr}")
    verified = json.loads(done.stdout)
    return {"runs": rows[TRAINING]["runs"], "seconds_to_run_again": round(back, 1), **verified}


def replica_pid(steps: Steps) -> int:
    """The process of the service's first replica, as the journal holds it."""
    replica = steps.steer("status", SERVICE)["replicas"][0]
    for event in reversed(steps.steer("audit", "--type", "rank-started", "--subject", replica["name"])):
        if event["body"]["run"] == replica["run"]:
            return int(event["body"]["pid"])
    sys.exit(f"error: the journal holds no process for {replica['name']}")


async def load(steps: Steps) -> list[Reply]:
    """Requests at a constant rate; in the middle a replica is killed, and the service is declared anew."""
    port = int(steps.rows()[SERVICE]["url"].split(":")[2].split("/")[0])
    _, _, images, _ = load_split()
    bodies = [json.dumps(image.tolist()).encode() for image in images]
    steps.say(f"{RATE} digits a second for {SECONDS} seconds, by way of the gateway on this machine")
    replies = asyncio.create_task(fire(port, f"/predict/{SERVICE}", bodies, RATE, SECONDS))
    await asyncio.sleep(3)
    pid = await asyncio.to_thread(replica_pid, steps)
    steps.say(f"killing the replica (process {pid}) with SIGKILL")
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(7)
    steps.say(f"declaring {SERVICE} anew, with other batches: a rolling update")
    text = on_ray(HERE / "02-serve" / "digits.yaml")
    changed = text.replace("replicas: 1", "replicas: 1\n  max_batch_size: 32")
    await asyncio.to_thread(up, changed, HERE / "02-serve")
    return await replies


def serve(steps: Steps) -> dict[str, Any]:
    """The trained model, served from the cluster."""
    steps.say(f"declaring {SERVICE} with `infra: ray`")
    up(on_ray(HERE / "02-serve" / "digits.yaml"), HERE / "02-serve")
    steps.watch(lambda rows: rows[SERVICE]["ready"] >= 1, line, "the service serves")
    replies = asyncio.run(load(steps))
    labels = load_split()[3].tolist()
    right = [reply.body["label"] == labels[reply.index] for reply in replies if reply.status == 200]
    nodes = [node for each in steps.steer("status", SERVICE)["replicas"] for node in each["nodes"]]
    accuracy = round(sum(right) / max(len(right), 1), 4)
    return {"accuracy": accuracy, "nodes": nodes, **summary(replies)}


def joined(steps: Steps) -> None:
    """Wait until the cluster has shown its nodes."""
    deadline = time.monotonic() + JOIN_SECONDS_MAX
    while time.monotonic() < deadline:
        found = steps.steer("status")["clusters"]
        if any(each["nodes"] == 3 for each in found):
            return
        time.sleep(0.5)
    sys.exit(f"error: the cluster was not joined: {found}")


def play(steps: Steps, cluster: RayCluster) -> dict[str, Any]:
    """All of it; the summary."""
    steps.say("starting a Ray cluster of three nodes, one after the other")
    cluster.start(Shape(1), Shape(2), Shape(2))
    done = subprocess.run([STEER, "secret", "set", "ray-token"], input=cluster.token, text=True)
    if done.returncode != 0:
        sys.exit("error: steer secret set failed")
    steps.steer("server", "--background")
    up(FLEET.format(address=cluster.address, python=cluster.python()), HERE)
    joined(steps)
    steps.say(f"the cluster at {cluster.address} has joined, with three nodes")
    return {"train": train(steps, cluster), "serve": serve(steps)}


def main() -> None:
    """Play it and sum it up; exit 0 only when everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only a JSON summary on standard output")
    arguments = parser.parse_args()
    steps, cluster = Steps(quiet=arguments.json), RayCluster(RAY)
    try:
        found = play(steps, cluster)
        if not arguments.json:
            for name in (TRAINING, SERVICE):
                print()
                subprocess.run([STEER, "explain", name], check=True)
        steps.steer("down", "--all")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        subprocess.run([STEER, "server", "--stop"], capture_output=True)
        cluster.close()
    found["seconds"] = round(time.monotonic() - steps.began, 1)
    print(json.dumps(found, indent=None if arguments.json else 2))
    wrong = []
    if found["train"]["runs"] < 2:
        wrong.append("the training did not lose its node")
    if found["serve"]["lost"] or found["serve"]["refused"]:
        wrong.append(f"{found['serve']['lost']} requests were lost, {found['serve']['refused']} refused")
    if found["serve"]["accuracy"] < ACCURACY_MIN:
        wrong.append(f"accuracy {found['serve']['accuracy']} is below {ACCURACY_MIN}")
    if wrong:
        sys.exit("error: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
