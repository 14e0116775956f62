"""How long a restart takes: a home with a million events, from its state image and without one.

    python -m bench.journal [--events 1000000] [--workloads 10000] [--folder DIR]

A home is filled with real events of running jobs, folded as they are stored. Then it is opened as a control
plane opens it: the newest state image is read, checked and decoded, its indexes rebuilt, and what came after
it folded; and once more with nothing but the events. Both must give the same state. Files are in the page
cache, as after a crash of the process. Acknowledged events a second are measured by bench.submit.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from steersman.decide.cycle import decide
from steersman.engine.restore import restore
from steersman.journal import SqliteJournal
from steersman.model.events import (
    CheckpointSaved,
    Decided,
    Event,
    FleetDeclared,
    HomeCreated,
    Observed,
    RankStarted,
    WorkloadDeclared,
)
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.resources import Resources
from steersman.model.snapshot import Run, Snapshot
from steersman.model.workload import CheckpointPolicy, Job, Workload
from steersman.state.fold import fold
from steersman.state.image import encode_image

FILL_EVENTS_PER_APPEND = 5_000
BUILD = "bench"
DIGEST = "sha256:" + "5" * 64


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


class Story:
    """A home that grows: a fleet, running jobs, and then checkpoint after checkpoint of theirs."""

    def __init__(self, workloads: int) -> None:
        self.snapshot = Snapshot()
        self.now_ms = 1_700_000_000_000
        self._runs: list[Run] = []
        self._step = 0
        self._opening = self._begin(workloads)

    def _fold(self, events: list[Event]) -> list[Event]:
        self.snapshot = fold(self.snapshot, enumerate(events, start=self.snapshot.position + 1))
        return events

    def _begin(self, workloads: int) -> list[Event]:
        node = Node(id=NodeId("node"), cpu_milli=workloads * 1_000, memory_bytes=workloads << 30)
        body = Job(run="train", checkpoint=CheckpointPolicy(enabled=True, interval_ms=1_000))
        resources = Resources(cpu_milli=1_000, memory_bytes=1 << 30)
        declared: list[Event] = [
            WorkloadDeclared(
                workload=Workload(name=WorkloadName(f"job-{i}"), body=body, resources=resources), digest="d"
            )
            for i in range(workloads)
        ]
        fleet = FleetDeclared(fleet=Fleet(name="bench", nodes=(node,)))
        events = self._fold([HomeCreated(home_id="bench"), fleet, Observed(now_ms=self.now_ms), *declared])
        plan = decide(self.snapshot)
        events = events + self._fold([Decided(observed_at=3, decisions=plan.decisions)])
        self._runs = [run for _, run in self.snapshot.runs.sorted_items()]
        begun: list[Event] = [RankStarted(run=run.id, rank=0, pid=1, at_ms=self.now_ms) for run in self._runs]
        return events + self._fold(begun)

    def batch(self, count: int) -> list[Event]:
        """The next events, about so many: one `Observed`, and checkpoints in turn."""
        if self._opening:
            opening, self._opening = self._opening, []
            return opening
        self.now_ms += 1_000
        events: list[Event] = [Observed(now_ms=self.now_ms)]
        for _ in range(count - 1):
            self._step += 1
            run = self._runs[self._step % len(self._runs)]
            events.append(
                CheckpointSaved(run=run.id, step=self._step, at_ms=self.now_ms, save_ms=30, digest=DIGEST)
            )
        return self._fold(events)


def fill(folder: Path, events: int, workloads: int) -> None:
    """A home with that many events at least, and a state image taken shortly before the last."""
    story = Story(workloads)
    with contextlib.closing(SqliteJournal.open(folder)) as journal:
        while journal.head().position < events:
            journal.append(story.batch(FILL_EVENTS_PER_APPEND), at_ms=story.now_ms)
            if journal.head().position < events:
                image = story.snapshot
        journal.save_image(image.position, BUILD, encode_image(image))


@contextlib.contextmanager
def _timed(figures: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    figures[name] = round(time.perf_counter() - began, 3)


def restart(folder: Path) -> dict[str, float]:
    """Seconds until the state stands again, from the image and from the events alone; both must be equal."""
    figures: dict[str, float] = {}
    with _timed(figures, "journal_restart_from_image_s"):
        journal = SqliteJournal.open(folder)
        from_image = restore(journal, BUILD)
    journal.close()
    with _timed(figures, "journal_restart_without_image_s"):
        journal = SqliteJournal.open(folder)
        from_events = restore(journal, "no image of this build")
    figures["journal_restarts_equal"] = float(encode_image(from_image) == encode_image(from_events))
    with _timed(figures, "journal_verify_s"):
        assert journal.verify().problems == ()
    journal.close()
    return figures


def measure(events: int = 1_000_000, workloads: int = 10_000, folder: Path | None = None) -> dict[str, float]:
    """All figures. `folder` is on the disk to measure; by default the system's temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bench-journal-", dir=folder) as name:
        home = Path(name)
        figures: dict[str, float] = {"journal_disk_sync_ms": round(sync_ms(home), 3)}
        with _timed(figures, "journal_fill_s"):
            fill(home / "home", events, workloads)
        return {**figures, "journal_events": events, "journal_workloads": workloads, **restart(home / "home")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--workloads", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.events, arguments.workloads, arguments.folder)))


if __name__ == "__main__":
    main()
