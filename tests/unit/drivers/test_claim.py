"""What the claim on a rank's folder keeps to whether or not anybody reads it in time."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from steersman.hosting import claim, files
from steersman.hosting.claim import Shims
from steersman.ports import run_dir


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A rank that began and whose shim has read nothing since: the test holds its lock."""
    folder = claim.rank_dir(tmp_path, "job.7", 0)
    folder.mkdir(parents=True)
    for name in (run_dir.ORDER, run_dir.STARTED):
        files.write_json(folder / name, {})
    return folder


def notices(folder: Path, *graces_ms: int) -> list[int]:
    lock = os.open(folder / run_dir.LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = []
        for grace_ms in graces_ms:
            notice = {"cause": "stopped", "grace_ms": grace_ms, "epoch": 1}
            claim.stop(Shims((), {}), folder, notice)
            found.append(json.loads((folder / run_dir.STOP).read_bytes())["grace_ms"])
        return found
    finally:
        os.close(lock)


def test_a_later_notice_can_only_shorten_the_grace(folder: Path) -> None:
    first, second, third = notices(folder, 60_000, 3_600_000, 100)
    assert first == 60_000
    assert 0 < second <= 60_000
    assert third == 100


@pytest.mark.parametrize("text", [b"", b"{", b'{"grace_ms": null}', b"[]"])
def test_a_damaged_notice_is_replaced(folder: Path, text: bytes) -> None:
    (folder / run_dir.STOP).write_bytes(text)
    assert notices(folder, 5_000) == [5_000]
