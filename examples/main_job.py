"""What `make run` runs: the examples' main jobs, one after the other, in one home.

With --json, standard output holds one document with the summary of each.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MAIN_JOBS = ("01-train", "02-serve")


def main() -> None:
    """Run each; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only a JSON summary on standard output")
    arguments = parser.parse_args()
    summaries = {}
    for name in MAIN_JOBS:
        if not arguments.json:
            print(f"\n== {name}", flush=True)
        command = [sys.executable, HERE / name / "main_job.py", *(["--json"] if arguments.json else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE if arguments.json else None)
        if done.returncode != 0:
            sys.exit(done.returncode)
        if arguments.json:
            summaries[name] = json.loads(done.stdout)
    if arguments.json:
        print(json.dumps(summaries))


if __name__ == "__main__":
    main()
