"""The shim: one small process per rank that outlives the control plane and owns the rank's processes.

It starts the program, keeps its limits and logs, ends its whole tree, stores its artifacts, and records
how it ended. The files it shares with the rest are described in `steersman.ports.run_dir`.

Never in here: a third-party import, an import of Steersman beyond `steersman.ports.run_dir`, a thread, a
retry of the program, or any choice about what should run.
"""

# ruff: noqa: PTH100, PTH118, PTH120 - pathlib costs every shim 3 ms and 0.5 MB

import os

__all__ = ["shim_argv"]


def shim_argv(python: str) -> tuple[str, ...]:
    """The command that a driver completes with a rank folder and two descriptors.

    Isolated and without site packages: quick to start, small, and deaf to the user's PYTHON* variables.
    """
    return (python, "-I", "-S", os.path.join(os.path.dirname(os.path.abspath(__file__)), "main.py"))
