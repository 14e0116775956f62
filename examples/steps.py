"""What the examples' main jobs share: the `steer` command as a user would give it, and lines with a time.

Nothing here decides anything: an example declares, looks and kills, and Steersman does the rest.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEER = Path(sys.executable).with_name("steer")
WATCH_S = 0.5
EXAMPLES = frozenset({"digits", "knn-baseline", "read-digits", "file-types", "patient-training"})
"""Everything that an example declares: what an earlier run left is taken down before the first begins."""


class Steps:
    """The steps of a main job, and what was said of them."""

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
        """Jobs and services by name."""
        status = self.steer("status")
        return {row["name"]: row for row in (*status["workloads"], *status["services"])}

    def watch(
        self,
        until: Callable[[dict[str, Any]], bool],
        line: Callable[[dict[str, Any]], str],
        what: str,
        seconds_max: float = 600,
    ) -> dict[str, Any]:
        """Show `line(rows)` until `until(rows)` holds; ends this script when a job fails, or takes too
        long.
        """
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            rows = self.rows()
            self.say(line(rows))
            if until(rows):
                return rows
            if any(row["phase"] == "failed" for row in rows.values()):
                break
            time.sleep(WATCH_S)
        sys.exit(f"error: gave up waiting until {what}\nhint: {STEER.name} status; {STEER.name} explain NAME")
