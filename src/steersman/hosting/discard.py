"""Forgetting an ended rank: a marker first, then its files; logs and stored artifacts stay.

The marker keeps the key from ever being started again and lets a discard that was cut short be done again.
The run's output folder goes with its last rank.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from steersman.hosting import files
from steersman.model.errors import DriverError
from steersman.ports import run_dir

KEPT = frozenset({run_dir.DISCARDED, run_dir.LOGS})


def discard(folder: Path, failpoint: Callable[[str], None] = lambda _name: None) -> None:
    """Forget a rank that has ended, by its folder; an unknown one is no matter. Raises DriverError, OSError.

    `failpoint` is called with the boundaries of `claim.FAILPOINTS` that it passes.
    """
    failpoint("discard:begin")
    if not folder.is_dir():
        return
    with files.flocked(folder / run_dir.FENCE):
        marker = folder / run_dir.DISCARDED
        if not marker.exists():
            if not (folder / run_dir.EXIT).exists():
                raise DriverError(
                    f"{folder.parent.name}/{folder.name} has not ended and cannot be forgotten",
                    hint="stop it first",
                )
            files.write_json(marker, {})
        failpoint("discard:marked")
        for path in folder.iterdir():
            if path.name not in KEPT:
                path.unlink()
        failpoint("discard:removed")
    ranks = [path for path in folder.parent.iterdir() if path.name != run_dir.OUTPUT]
    if all((path / run_dir.DISCARDED).exists() for path in ranks):
        shutil.rmtree(folder.parent / run_dir.OUTPUT, ignore_errors=True)
