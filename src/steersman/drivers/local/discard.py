"""Forgetting an ended rank: a marker first, then its files; logs and stored artifacts stay.

The marker keeps the key from ever being started again and lets a discard that was cut short be done again.
The run's output folder goes with its last rank.
"""

import shutil

from steersman.drivers.local import files
from steersman.drivers.local.spawn import LocalSettings, rank_dir
from steersman.model.errors import DriverError
from steersman.ports import run_dir
from steersman.ports.driver import RankKey

KEPT = frozenset({run_dir.DISCARDED, run_dir.LOGS})


def discard(settings: LocalSettings, key: RankKey) -> None:
    """Forget a rank that has ended; an unknown one is no matter. Raises DriverError, OSError."""
    settings.failpoint("discard:begin")
    folder = rank_dir(settings.home, key)
    if not folder.is_dir():
        return
    with files.flocked(folder / run_dir.FENCE):
        marker = folder / run_dir.DISCARDED
        if not marker.exists():
            if not (folder / run_dir.EXIT).exists():
                raise DriverError(
                    f"{key.run}/{key.rank} has not ended and cannot be forgotten", hint="stop it first"
                )
            files.write_json(marker, {})
        settings.failpoint("discard:marked")
        for path in folder.iterdir():
            if path.name not in KEPT:
                path.unlink()
        settings.failpoint("discard:removed")
    ranks = [path for path in folder.parent.iterdir() if path.name != run_dir.OUTPUT]
    if all((path / run_dir.DISCARDED).exists() for path in ranks):
        shutil.rmtree(folder.parent / run_dir.OUTPUT, ignore_errors=True)
