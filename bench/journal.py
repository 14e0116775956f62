"""The journal on a real disk: acknowledged events a second, and how long a restart takes.

    python -m bench.journal [--seconds 5] [--events 1000000] [--image-mib 64] [--folder DIR]

Throughput: 64 tasks append one event at a time through GroupCommit, each waiting for its acknowledgement
before the next, so what is counted is durable: synced to the write-ahead log and anchored. The disk's own
sync time is measured beside it, for the figure means little without it; commits per second times the sync
time tells how much of the time is the disk's.

Restart: a home with that many events is opened, its newest state image loaded and checked, and the events
after the image read and decoded; against opening it and reading and decoding all. Files are in the page
cache, as after a crash of the process. Decoding the image's own bytes is the state's affair.
"""

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from steersman.journal import GroupCommit, SqliteJournal
from steersman.model.codec import decode_event
from steersman.model.events import CheckpointSaved, Event
from steersman.model.ids import RunId

WRITERS = 64
WARM_UP_SECONDS = 0.3
FILL_EVENTS_PER_APPEND = 5_000
EVENTS_AFTER_IMAGE = 5_000
BUILD = "bench"
DIGEST = "sha256:" + "5" * 64


def event(number: int) -> Event:
    """An event of the usual size: a body of about 190 bytes."""
    return CheckpointSaved(
        run=RunId(f"train-{number % 997}.7"), step=number, at_ms=number, save_ms=30, digest=DIGEST
    )


def sync_ms(folder: Path, samples: int = 200) -> float:
    """Median time of overwriting 4 KiB and syncing it, in milliseconds."""
    descriptor = os.open(folder / "sync-probe", os.O_RDWR | os.O_CREAT, 0o600)
    times = []
    try:
        os.pwrite(descriptor, bytes(8_192), 0)
        os.fsync(descriptor)
        for number in range(samples):
            began = time.perf_counter()
            os.pwrite(descriptor, bytes([number % 256]) * 4_096, 4_096 * (number % 2))
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return sorted(times)[samples // 2] * 1_000


async def _write(committer: GroupCommit, writer: int, until: list[float], counts: list[int]) -> None:
    number = writer
    while time.perf_counter() < until[0]:
        await committer.append([event(number)])
        counts[writer] += 1
        number += WRITERS


async def _acknowledged(journal: SqliteJournal, writers: int, seconds: float) -> tuple[int, float, float]:
    async with GroupCommit(journal, lambda: int(time.time() * 1_000)) as committer:
        for length, measured in ((WARM_UP_SECONDS, False), (seconds, True)):
            counts = [0] * writers
            began, cpu = time.perf_counter(), time.process_time()
            until = [began + length]
            await asyncio.gather(*(_write(committer, writer, until, counts) for writer in range(writers)))
            if measured:
                return sum(counts), time.perf_counter() - began, time.process_time() - cpu
    raise AssertionError("the second pass is measured")


def throughput(folder: Path, seconds: float, writers: int = WRITERS) -> dict[str, float]:
    """Acknowledged events a second from that many waiting writers."""
    with contextlib.closing(SqliteJournal.open(folder)) as journal:
        count, took, cpu = asyncio.run(_acknowledged(journal, writers, seconds))
        assert journal.verify().problems == ()
    return {
        f"journal_acked_events_per_s_{writers}_writers": round(count / took),
        f"journal_cpu_us_per_event_{writers}_writers": round(cpu / count * 1e6, 1),
    }


def fill(folder: Path, events: int, image_bytes: int) -> None:
    """A home with that many events and an image taken shortly before the last."""
    with contextlib.closing(SqliteJournal.open(folder)) as journal:
        for start in range(0, events, FILL_EVENTS_PER_APPEND):
            stop = min(start + FILL_EVENTS_PER_APPEND, events)
            journal.append([event(number) for number in range(start, stop)], at_ms=start)
        journal.save_image(max(0, events - EVENTS_AFTER_IMAGE), BUILD, os.urandom(image_bytes))


@contextlib.contextmanager
def _timed(figures: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    figures[name] = round(time.perf_counter() - began, 3)


def _decode_after(journal: SqliteJournal, position: int) -> int:
    count = 0
    for record in journal.read(after=position):
        decode_event(record.type, record.version, record.body)
        count += 1
    return count


def restart(folder: Path, events: int) -> dict[str, float]:
    """Seconds until the state could be served, from the image and from the events alone."""
    figures: dict[str, float] = {}
    with _timed(figures, "journal_restart_from_image_s"):
        journal = SqliteJournal.open(folder)
        loaded = journal.load_image(BUILD)
        assert loaded is not None
        _decode_after(journal, loaded[0])
    journal.close()
    with _timed(figures, "journal_restart_without_image_s"):
        journal = SqliteJournal.open(folder)
        assert _decode_after(journal, 0) == events
    with _timed(figures, "journal_verify_s"):
        assert journal.verify().problems == ()
    journal.close()
    return figures


def measure(
    seconds: float = 3.0, events: int = 1_000_000, image_mib: int = 64, folder: Path | None = None
) -> dict[str, float]:
    """All figures. `folder` is on the disk to measure; by default the system's temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bench-journal-", dir=folder) as name:
        home = Path(name)
        return {
            "journal_disk_sync_ms": round(sync_ms(home), 3),
            **throughput(home / "64", seconds),
            **throughput(home / "1", seconds / 3, writers=1),
            "journal_restart_events": events,
            "journal_restart_image_mib": image_mib,
            **_filled_restart(home / "restart", events, image_mib),
        }


def _filled_restart(home: Path, events: int, image_mib: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    with _timed(figures, "journal_fill_s"):
        fill(home, events, image_mib << 20)
    return {**figures, **restart(home, events)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--image-mib", type=int, default=64)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.seconds, chosen.events, chosen.image_mib, chosen.folder)))


if __name__ == "__main__":
    main()
