"""Serving, end to end: the second half of `make run`. It needs what 01-train left in the home: a trained
model.

What happens: two services start, one with the model that the training made, one with a model from a wheel,
and a training with time to spare takes the core that is left. Real requests arrive at a constant rate. A
burst on one service makes it scale up, by taking the training's core; when it is over the core goes back
and the training resumes. Under load a replica is killed with SIGKILL, and a service is declared anew, which
rolls it out; every request is answered all the same. In the end the answers are checked, and Steersman
explains what it did.
"""

import argparse
import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path += [str(HERE.parent), str(HERE.parent / "01-train")]
from digits import load_split  # noqa: E402 - the held-out images are those of 01-train
from load import Reply, fire, summary  # noqa: E402 - beside this file
from steps import STEER, Steps  # noqa: E402 - what the examples share is beside their folders

DIGITS, FILES, TRAINING = "read-digits", "file-types", "patient-training"
OURS = (DIGITS, FILES, TRAINING)
ACCURACY_MIN, AGREE_MIN = 0.97, 0.95
DIGITS_RATE, FILES_RATE, BURST_RATE = 200, 10, 60
FILES_A_TYPE_MAX, FILE_BYTES_MIN, FILE_BYTES_MAX = 100, 500, 64_000


def line(rows: dict[str, Any]) -> str:
    """Both services and the training in a few words."""
    parts = []
    for name in OURS:
        row = rows.get(name)
        if row is None:
            continue
        if "ready" in row:
            parts.append(f"{name}: {row['ready']} of {row['target']} ready")
        else:
            step = "" if row["step"] is None else f" step {row['step']:.0f}"
            parts.append(f"{name}: {row['run_state'] if row['phase'] == 'active' else row['phase']}{step}")
    return "   ".join(parts)


def digit_bodies() -> tuple[list[bytes], list[int]]:
    """Every held-out image as a request, and the right answers."""
    _, _, images, labels = load_split()
    return [json.dumps(image.tolist()).encode() for image in images], labels.tolist()


def file_bodies() -> tuple[list[bytes], list[str]]:
    """Files of this machine as requests, types in turn: Python's own library, whose names tell the type."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = [
        [(path, label) for path in sorted(library.rglob(f"*{suffix}")) if _fits(path)][:FILES_A_TYPE_MAX]
        for suffix, label in ((".py", "python"), (".pyc", "pythonbytecode"), (".so", "elf"))
    ]
    pairs = [pair for row in zip_longest(*found) for pair in row if pair is not None]
    texts = (base64.b64encode(path.read_bytes()).decode() for path, _ in pairs)
    return [json.dumps({"base64": text}).encode() for text in texts], [label for _, label in pairs]


def _fits(path: Path) -> bool:
    return path.is_file() and FILE_BYTES_MIN < path.stat().st_size < FILE_BYTES_MAX


def port_of(steps: Steps) -> int:
    """The gateway's port, from a service's address."""
    return int(steps.rows()[DIGITS]["url"].split(":")[2].split("/")[0])


def replica_pid(steps: Steps, name: str) -> int:
    """The process of a service's first replica, as the journal holds it."""
    replica = steps.steer("status", name)["replicas"][0]
    for event in reversed(steps.steer("audit", "--type", "rank-started", "--subject", replica["name"])):
        if event["body"]["run"] == replica["run"]:
            return int(event["body"]["pid"])
    sys.exit(f"error: the journal holds no process for {replica['name']}")


def start(steps: Steps) -> None:
    """Declare everything and wait until it serves."""
    if "digits" not in steps.rows():
        sys.exit("error: there is no trained model\nhint: run 01-train/main_job.py first, as make run does")
    steps.say("declaring two services, and a training for the core that is left")
    steps.steer("up", *(str(HERE / f"{name}.yaml") for name in ("digits", "files", "training")), "--no-wait")
    steps.watch(
        lambda rows: (
            all(rows[name]["ready"] >= rows[name]["target"] for name in (DIGITS, FILES))
            and rows[TRAINING]["run_state"] == "running"
            and (rows[TRAINING]["saved_step"] or 0) > 0
        ),
        line,
        "both services serve and the training has saved a checkpoint",
        seconds_max=120,
    )


async def steady(steps: Steps, port: int) -> tuple[list[Reply], list[Reply]]:
    """Load on both services at once; in the middle a replica is killed, and a service is declared anew."""
    digits, _ = digit_bodies()
    files, _ = file_bodies()
    steps.say(f"{DIGITS_RATE} digits and {FILES_RATE} files a second for 12 seconds")
    loads = asyncio.gather(
        fire(port, f"/predict/{DIGITS}", digits, DIGITS_RATE, 12),
        fire(port, f"/predict/{FILES}", files, FILES_RATE, 12),
    )
    await asyncio.sleep(3)
    pid = await asyncio.to_thread(replica_pid, steps, DIGITS)
    steps.say(f"killing the replica of {DIGITS} (process {pid}) with SIGKILL")
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(4)
    steps.say(f"declaring {DIGITS} anew, with other batches: a rolling update")
    changed = (HERE / "digits.yaml").read_text().replace("replicas: 1", "replicas: 1\n  max_batch_size: 32")
    await asyncio.to_thread(_declare, changed)
    replies = await loads
    return replies[0], replies[1]


def _declare(text: str) -> None:
    done = subprocess.run([STEER, "up", "-", "--no-wait"], input=text, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"error: steer up failed\n{done.stderr}")


async def burst(steps: Steps, port: int) -> list[Reply]:
    """More than one replica can do, until the service has grown at the training's cost."""
    files, _ = file_bodies()
    steps.say(f"a burst: {BURST_RATE} files a second for 12 seconds")
    load = asyncio.create_task(fire(port, f"/predict/{FILES}", files, BURST_RATE, 12))
    while not load.done():
        steps.say(line(await asyncio.to_thread(steps.rows)))
        await asyncio.sleep(0.5)
    return await load


def play(steps: Steps) -> dict[str, Any]:
    """All of it; the summary."""
    start(steps)
    port = port_of(steps)
    before = steps.rows()[TRAINING]["preemptions"]
    digits, files = asyncio.run(steady(steps, port))
    peak_files = asyncio.run(burst(steps, port))
    after = steps.watch(
        lambda rows: (
            rows[FILES]["ready"] == rows[FILES]["target"] == 1
            and rows[TRAINING]["run_state"] == "running"
            and rows[TRAINING]["preemptions"] > before
        ),
        line,
        "the burst is over and the training runs again",
        seconds_max=120,
    )
    labels, types = digit_bodies()[1], file_bodies()[1]
    right = [reply.body["label"] == labels[reply.index] for reply in digits if reply.status == 200]
    agree = [reply.body["label"] == types[reply.index] for reply in files if reply.status == 200]
    return {
        "digits": {"accuracy": round(sum(right) / max(len(right), 1), 4), **summary(digits)},
        "files": {"agree_with_their_names": round(sum(agree) / max(len(agree), 1), 4), **summary(files)},
        "burst": summary(peak_files),
        "training": {"preemptions": after[TRAINING]["preemptions"] - before, "runs": after[TRAINING]["runs"]},
        "revision": after[DIGITS]["revision"],
        "seconds": round(time.monotonic() - steps.began, 1),
    }


def check(found: dict[str, Any]) -> list[str]:
    """What this example promises and did not hold; empty when all of it did."""
    lost = ((found[name]["lost"], name) for name in ("digits", "files", "burst"))
    wrong = [f"{count} requests of {name} were lost" for count, name in lost if count]
    if found["digits"]["accuracy"] < ACCURACY_MIN:
        wrong.append(f"accuracy {found['digits']['accuracy']} is below {ACCURACY_MIN}")
    if found["files"]["agree_with_their_names"] < AGREE_MIN:
        wrong.append(f"only {found['files']['agree_with_their_names']} of the files were named right")
    return wrong


def show(found: dict[str, Any]) -> None:
    """The figures as a small table."""
    columns = ("sent", "answered", "refused", "lost", "p50_ms", "p95_ms", "p99_ms")
    print("\n" + " " * 10 + "".join(f"{column.replace('_', ' '):>10}" for column in columns))
    for name in ("digits", "files", "burst"):
        print(f"{name:10}" + "".join(f"{found[name][column]:>10}" for column in columns))
    print(f"\nAccuracy on held-out digits, over HTTP: {found['digits']['accuracy']:.4f}")
    print(f"Files named right: {found['files']['agree_with_their_names']:.4f}")
    print(f"Services took the training's core {found['training']['preemptions']} time(s); it runs again.")


def main() -> None:
    """Play it and sum it up; exit 0 only when everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only a JSON summary on standard output")
    arguments = parser.parse_args()
    steps = Steps(quiet=arguments.json)
    try:
        found = play(steps)
    except KeyboardInterrupt:
        sys.exit("interrupted; what was declared goes on (make stop ends it)")
    wrong = check(found)
    if arguments.json:
        print(json.dumps({**found, "ok": not wrong}))
    else:
        for name in (FILES, TRAINING):
            print()
            subprocess.run([STEER, "explain", name], check=True)
        show(found)
        home = os.environ.get("STEERSMAN_HOME")
        prefix = f"STEERSMAN_HOME={home} " if home else ""
        print("\nThe services go on serving. Look further:")
        for verb in ("status", f"status {DIGITS}", f"explain {DIGITS}", f"logs {DIGITS}"):
            print(f"  {prefix}{os.path.relpath(STEER)} {verb}")
        image = json.dumps(load_split()[2][0].tolist()).replace(" ", "")
        print(f"  curl http://127.0.0.1:{port_of(steps)}/predict/{DIGITS} -d '{image}'")
        print("Stop everything with: make stop")
    steps.steer("down", TRAINING)
    if wrong:
        sys.exit("error: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
