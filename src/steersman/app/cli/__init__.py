"""The command line: one module per verb, loaded when it is called.

`main` is the entry point of `steer`. Nothing is imported here but what every call needs, so that `steer
status` answers at once and Ctrl-C is answered in one line even while the rest is loading. Never in here: what
a verb means (that is `app` and the packages below); a verb parses its arguments, asks, and shows the answer.
"""

import sys
from importlib import import_module
from typing import Any

INTERRUPTED = 130
"""128 + SIGINT, as shells expect."""


def load(module: str) -> Any:
    """A module of this package, when it is needed: the one place that imports by name."""
    return import_module(f"steersman.app.cli.{module}")


def main() -> None:
    """Run `steer` with this process's arguments and exit."""
    try:
        code = load("root").run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = INTERRUPTED
    sys.exit(code)
