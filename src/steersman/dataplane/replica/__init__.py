"""One instance of a service: loads the model, answers batches on a Unix socket, drains when told to end.

It runs as its own process under a shim, in the user's own interpreter where one is named; so it knows nothing
of Steersman but the names of its files and the frames, and imports the standard library only (`onnx_model`
alone imports numpy and onnxruntime). Never in here: HTTP, keys, or a queue of requests.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["replica_argv"]


def replica_argv(python: str) -> tuple[str, ...]:
    """The command of a replica. `python`: an interpreter of 3.9 or later; the environment holds all else."""
    return (python, str(Path(__file__).absolute().with_name("main.py")))
