"""The command line that every problem's benchmark has."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence


def command(
    measure: Callable[[bool], dict[str, float]], words: str | None, arguments: Sequence[str] | None = None
) -> int:
    """Measure and print; 1 when there was nothing to measure. `words`: what --help says."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    figures = measure(chosen.short)
    if chosen.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name:60}{value:>14,.4f}\n")
    return 0 if figures else 1
