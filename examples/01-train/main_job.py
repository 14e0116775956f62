"""The main job, end to end: `make run` calls this. It talks to Steersman only through the `steer` command.

What happens: a training is declared and starts on a fleet of two cores; an urgent job arrives and takes the
cores, so the training saves, yields and later resumes; then the trainer is killed with SIGKILL, and resumes
once more from its newest checkpoint. In the end the exported model is checked against held-out data, and
Steersman explains what it did. Nothing here decides anything: this script only declares, kills and watches.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from steps import EXAMPLES, STEER, Steps  # noqa: E402 - what the examples share is beside their folders

TRAINING, URGENT = "digits", "knn-baseline"


def line(rows: dict[str, Any]) -> str:
    """Both jobs in a few words."""
    return "   ".join(words(rows[name]) for name in (TRAINING, URGENT) if name in rows)


def words(row: dict[str, Any]) -> str:
    """One job in a few words."""
    text = f"{row['name']}: {row['phase']}"
    if row["phase"] == "active" and row["step"] is not None:
        text += f" step {row['step']:.0f}/{row['steps_total']:.0f}"
        if row["loss"] is not None:
            text += f" loss {row['loss']:.4f}"
    return text


def trainer_of(steps: Steps, run: str) -> int:
    """The trainer's process: the child of the shell whose process id the journal holds for a run."""
    shell = shell_of(steps, run)
    children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    return int(children[0]) if children else shell


def shell_of(steps: Steps, run: str) -> int:
    """The process id that the journal holds for rank 0 of a run."""
    for event in reversed(steps.steer("audit", "--type", "rank-started", "--subject", TRAINING)):
        if event["body"]["run"] == run:
            return int(event["body"]["pid"])
    sys.exit(f"error: the journal holds no process for run {run}")


def play(steps: Steps) -> dict[str, Any]:
    """Declare, interrupt, kill, and wait; returns the rows at the end."""
    steps.steer("server", "--background")
    known = sorted(EXAMPLES & steps.rows().keys())
    if known:
        steps.say(f"taking down what an earlier run left: {', '.join(known)}")
        steps.steer("down", *known)
    steps.say(f"declaring {TRAINING} on a fleet of two cores")
    steps.steer("up", str(HERE / "fleet.yaml"), str(HERE / "train.yaml"), "--no-wait")
    steps.watch(
        lambda rows: (rows[TRAINING]["saved_step"] or 0) > 0, line, "the training has saved a checkpoint"
    )
    steps.say(f"an urgent job arrives: {URGENT} asks for both cores")
    steps.steer("up", str(HERE / "urgent.yaml"), "--no-wait")
    steps.watch(lambda rows: rows[URGENT]["phase"] == "succeeded", line, "the urgent job is done")
    rows = steps.watch(
        lambda rows: (
            rows[TRAINING]["run_state"] == "running"
            and (rows[TRAINING]["step"] or 0) > rows[TRAINING]["saved_step"]
        ),
        line,
        "the training has resumed",
    )
    pid = trainer_of(steps, rows[TRAINING]["run"])
    steps.say(f"killing the trainer (process {pid}) with SIGKILL")
    os.kill(pid, signal.SIGKILL)
    return steps.watch(
        lambda rows: all(rows[name]["settled"] for name in (TRAINING, URGENT)), line, "everything is settled"
    )


def verify(steps: Steps, rows: dict[str, Any]) -> dict[str, Any]:
    """Check what the job promised: the accuracy of the model, and that it was interrupted as told."""
    artifacts = {item["name"]: item for item in steps.steer("status", TRAINING)["artifacts"]}
    paths = [artifacts[name]["path"] for name in ("model", "metrics")]
    command = [sys.executable, HERE / "verify.py", *paths, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: the exported model did not pass\n{done.stdout}{done.stderr}")
    training = rows[TRAINING]
    summary = {
        "ok": training["phase"] == "succeeded" and rows[URGENT]["phase"] == "succeeded",
        "preemptions": training["preemptions"],
        "runs": training["runs"],
        "model": artifacts["model"],
        "verification": json.loads(done.stdout),
        "seconds": round(time.monotonic() - steps.began, 1),
    }
    if not summary["ok"] or training["preemptions"] < 1 or training["runs"] < 3:
        sys.exit(
            f"error: the training was not interrupted and resumed as this example should show\n{summary}"
        )
    return summary


def main() -> None:
    """Play the main job and sum it up; exit 0 only when everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only a JSON summary on standard output")
    arguments = parser.parse_args()
    steps = Steps(quiet=arguments.json)
    try:
        rows = play(steps)
        summary = verify(steps, rows)
    except KeyboardInterrupt:
        sys.exit("interrupted; what was declared goes on (make stop ends it)")
    if arguments.json:
        explained = {name: steps.steer("explain", name) for name in (TRAINING, URGENT)}
        print(json.dumps({**summary, "explain": explained}))
        return
    for name in (TRAINING, URGENT):
        print()
        subprocess.run([STEER, "explain", name], check=True)
    accuracy = summary["verification"]["held_out_accuracy"]
    print(f"\nHeld-out accuracy of the exported model: {accuracy:.4f} ({artifact_line(summary['model'])})")
    print(f"{TRAINING}: {summary['runs']} runs, preempted {summary['preemptions']} time(s), killed once.")
    home = os.environ.get("STEERSMAN_HOME")
    prefix = f"STEERSMAN_HOME={home} " if home else ""
    print("\nSteersman goes on running. Look further:")
    for verb in ("status", f"explain {TRAINING}", f"logs {TRAINING}", "audit", "audit --verify", "doctor"):
        print(f"  {prefix}{os.path.relpath(STEER)} {verb}")
    print("Stop it with: make stop")


def artifact_line(artifact: dict[str, Any]) -> str:
    """Name, size and digest of an artifact."""
    return f"{artifact['name']}, {artifact['size_bytes']} bytes, {artifact['digest'][:19]}…"


if __name__ == "__main__":
    main()
