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
STEER = Path(sys.executable).with_name("steer")
TRAINING, URGENT = "digits", "knn-baseline"
WATCH_S = 0.5
FINISH_S_MAX = 600


class Job:
    """The steps of the main job, and what was seen of them."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.began = time.monotonic()
        self.said = ""

    def say(self, text: str) -> None:
        """One line with the time since the beginning; the same line is not said twice."""
        if text != self.said:
            self.said = text
            stream = sys.stderr if self.quiet else sys.stdout
            print(f"{time.monotonic() - self.began:6.1f} s  {text}", file=stream, flush=True)

    def steer(self, *arguments: str) -> Any:
        """Run `steer ARGUMENTS --json` and return its answer; ends this script when it fails."""
        done = subprocess.run([STEER, *arguments, "--json"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"error: steer {' '.join(arguments)} failed\n{done.stderr or done.stdout}")
        return json.loads(done.stdout)

    def rows(self) -> dict[str, Any]:
        """The workloads by name."""
        return {row["name"]: row for row in self.steer("status")["workloads"]}

    def watch(self, until: Any, what: str) -> dict[str, Any]:
        """Show the training's progress until `until(rows)` holds."""
        deadline = time.monotonic() + FINISH_S_MAX
        while time.monotonic() < deadline:
            rows = self.rows()
            self.say("   ".join(line(row) for _, row in sorted(rows.items())))
            if until(rows):
                return rows
            if any(row["phase"] == "failed" for row in rows.values()):
                break
            time.sleep(WATCH_S)
        sys.exit(f"error: gave up waiting until {what}\nhint: {STEER.name} explain {TRAINING}")


def line(row: dict[str, Any]) -> str:
    """One workload in a few words."""
    text = f"{row['name']}: {row['phase']}"
    if row["phase"] == "active" and row["step"] is not None:
        text += f" step {row['step']:.0f}/{row['steps_total']:.0f}"
        if row["loss"] is not None:
            text += f" loss {row['loss']:.4f}"
    return text


def trainer_of(job: Job, run: str) -> int:
    """The trainer's process: the child of the shell whose process id the journal holds for a run."""
    shell = shell_of(job, run)
    children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    return int(children[0]) if children else shell


def shell_of(job: Job, run: str) -> int:
    """The process id that the journal holds for rank 0 of a run."""
    for event in reversed(job.steer("audit", "--type", "rank-started", "--subject", TRAINING)):
        if event["body"]["run"] == run:
            return int(event["body"]["pid"])
    sys.exit(f"error: the journal holds no process for run {run}")


def play(job: Job) -> dict[str, Any]:
    """Declare, interrupt, kill, and wait; returns the rows at the end."""
    job.steer("server", "--background")
    known = [name for name in (TRAINING, URGENT) if name in job.rows()]
    if known:
        job.say(f"taking down what an earlier run left: {', '.join(known)}")
        job.steer("down", *known)
    job.say(f"declaring {TRAINING} on a fleet of two cores")
    job.steer("up", str(HERE / "fleet.yaml"), str(HERE / "train.yaml"), "--no-wait")
    job.watch(lambda rows: (rows[TRAINING]["saved_step"] or 0) > 0, "the training has saved a checkpoint")
    job.say(f"an urgent job arrives: {URGENT} asks for both cores")
    job.steer("up", str(HERE / "urgent.yaml"), "--no-wait")
    job.watch(lambda rows: rows[URGENT]["phase"] == "succeeded", "the urgent job is done")
    rows = job.watch(
        lambda rows: (
            rows[TRAINING]["run_state"] == "running"
            and (rows[TRAINING]["step"] or 0) > rows[TRAINING]["saved_step"]
        ),
        "the training has resumed",
    )
    pid = trainer_of(job, rows[TRAINING]["run"])
    job.say(f"killing the trainer (process {pid}) with SIGKILL")
    os.kill(pid, signal.SIGKILL)
    return job.watch(lambda rows: all(row["settled"] for row in rows.values()), "everything is settled")


def verify(job: Job, rows: dict[str, Any]) -> dict[str, Any]:
    """Check what the job promised: the accuracy of the model, and that it was interrupted as told."""
    artifacts = {item["name"]: item for item in job.steer("status", TRAINING)["artifacts"]}
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
        "seconds": round(time.monotonic() - job.began, 1),
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
    job = Job(quiet=arguments.json)
    try:
        rows = play(job)
        summary = verify(job, rows)
    except KeyboardInterrupt:
        sys.exit("interrupted; what was declared goes on (make stop ends it)")
    if arguments.json:
        explained = {name: job.steer("explain", name) for name in (TRAINING, URGENT)}
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
