"""What the environment tells a rank, read once and checked.

A variable that is absent has the default written here, so that a script runs by itself on a laptop. One that
is present and wrong is refused: a training run that silently keeps its checkpoints elsewhere loses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steersman_trainer import names
from steersman_trainer.errors import TrainerError

LOCAL_CHECKPOINT_DIR = "checkpoints"
INTERVAL_MS_DEFAULT = 60_000
KEEP_DEFAULT = 3
NUMBER_MAX = 10**12


@dataclass(frozen=True)
class Settings:
    """`run_dir` None: not under Steersman. `interval_ms` 0: every call of `checkpoint` saves."""

    run_id: str = "local"
    rank: int = 0
    num_nodes: int = 1
    run_dir: Path | None = None
    checkpoint_dir: Path = Path(LOCAL_CHECKPOINT_DIR)
    interval_ms: int = INTERVAL_MS_DEFAULT
    keep: int = KEEP_DEFAULT
    doorbell: str = ""


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from STEERSMAN_* variables. Raises TrainerError naming the variable that is wrong."""
    num_nodes = _number(environ, names.ENV_NUM_NODES, 1, least=1)
    rank = _number(environ, names.ENV_NODE_RANK, 0, least=0)
    if rank >= num_nodes:
        raise TrainerError(
            f"{names.ENV_NODE_RANK} is {rank}, but {names.ENV_NUM_NODES} is {num_nodes}",
            hint="ranks count from 0",
        )
    run_dir = environ.get(names.ENV_RUN_DIR)
    return Settings(
        run_id=environ.get(names.ENV_RUN_ID) or "local",
        rank=rank,
        num_nodes=num_nodes,
        run_dir=Path(run_dir).absolute() if run_dir else None,
        # Absolute, for a script may change its working directory after start().
        checkpoint_dir=Path(environ.get(names.ENV_CHECKPOINT_DIR) or LOCAL_CHECKPOINT_DIR).absolute(),
        interval_ms=_number(environ, names.ENV_CHECKPOINT_INTERVAL_MS, INTERVAL_MS_DEFAULT, least=0),
        keep=_number(environ, names.ENV_CHECKPOINT_KEEP, KEEP_DEFAULT, least=1),
        doorbell=environ.get(names.ENV_DOORBELL, ""),
    )


def _number(environ: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    # isascii and the length first: int() reads other scripts' digits, and very long ones slowly.
    if text.isascii() and text.isdigit() and len(text) <= len(str(NUMBER_MAX)):
        value = int(text)
        if least <= value <= NUMBER_MAX:
            return value
    raise TrainerError(
        f"{name} is {text[:40]!r}, which is not a whole number of at least {least}",
        hint=f"set it to a number, or unset it for the default of {default}",
    )
