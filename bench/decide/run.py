"""All problems, one after another, with what they come to beside their baselines and bounds.

    python -m bench.decide.run                   all of it, about 20 minutes on two cores
    python -m bench.decide.run --short           a few minutes: fewer seeds, shorter spans, for a look
    python -m bench.decide.run --only packing

Theory: each problem is a module with `measure(short)`, which prints its table and gives its figures by name;
the floors are in bench/floors.toml. The traces are public and are no part of this repository:
STEERSMAN_TRACES names their folder (docs/guides/replay.md tells its layout). Without them nothing is
measured, and it says so.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module

PROBLEMS: Mapping[str, str] = {
    "packing": "packing",
    "jobs": "jobs",
    "autoscale": "autoscale",
    "spot-job": "spot_job",
}


def measure(short: bool = False, only: Sequence[str] = ()) -> dict[str, float]:
    """The figures of all problems by name, for bench.run and its floors."""
    figures: dict[str, float] = {}
    for name, module in PROBLEMS.items():
        if not only or name in only:
            began = time.monotonic()
            figures |= import_module(f"bench.decide.{module}").measure(short)
            sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", action="append", default=[], choices=tuple(PROBLEMS))
    chosen = parser.parse_args(arguments)
    for name, value in measure(chosen.short, chosen.only).items():
        print(f"{name:60}{value:>14,.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
