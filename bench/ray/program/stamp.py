"""A program that says when it began: `python stamp.py FILE`. Nanoseconds since the epoch."""

import sys
import time

at = time.time_ns()
with open(sys.argv[1], "x") as file:  # noqa: PTH123 - pathlib would take longer to import than all the rest
    file.write(str(at))
