"""Simulated power cuts: does anything that the journal acknowledged ever go missing?

    python -m bench.power_cut --cuts 10000 --seed 1
    python -m bench.power_cut --cuts 300 --planted synchronous-normal     (must find losses, exits 1)

The real SqliteJournal runs on a disk in memory (tests/contract/journal_disk.py) that loses, tears and
reorders what was not synced. One life: open, append and save images at random, now and then close and open
again, until the power is cut before a random disk operation, which may be in the middle of creating the
journal or of recovering from the cut before. Then the survivors are opened and held to the contract:

* every acknowledged event is there with its bytes, in order, without a gap;
* of the append that was cut off, all events are there or none;
* the journal opens, and its chain verifies against the anchor;
* before that, the anchor as found was behind by at most one append and never ahead of the database;
* an image that loads is one that was saved, byte for byte.

A lineage of up to `CUTS_PER_LINEAGE` cuts shares one history, so that recovery is cut too. `--planted`
breaks the journal on purpose and proves that this checker bites.
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec
from tests.contract.journal_disk import SimDisk, SimVfs
from tests.contract.journal_events import sized

from steersman.journal.anchor import ANCHOR_NAME, decode_anchor
from steersman.journal.files import Files, OpenFile
from steersman.journal.sqlite import SqliteJournal
from steersman.model.codec import encode_event
from steersman.model.errors import SteersmanError
from steersman.model.events import Event
from steersman.ports.journal import Head, Record

CUTS_PER_LINEAGE = 25
OPERATIONS_PER_LIFE_MAX = 400
BUILD = "build-1"
Planted = Literal["none", "synchronous-normal", "anchor-before-commit", "anchor-unsynced"]


class Tally(msgspec.Struct, kw_only=True):
    """What was done and what was found."""

    cuts: int = 0
    lineages: int = 0
    appends_acknowledged: int = 0
    events_acknowledged: int = 0
    cut_off_kept: int = 0
    cut_off_dropped: int = 0
    images_returned: int = 0
    acknowledged_lost: int = 0
    torn_appends: int = 0
    refused_to_open: int = 0
    chain_broken: int = 0
    anchor_lagging: int = 0
    image_wrong: int = 0

    def failures(self) -> int:
        return (
            self.acknowledged_lost
            + self.torn_appends
            + self.refused_to_open
            + self.chain_broken
            + self.anchor_lagging
            + self.image_wrong
        )


class AnchorFirst(SqliteJournal):
    """Planted fault: moves the anchor before the commit it vouches for."""

    def _commit(self, records: Sequence[Record]) -> None:
        self._anchor.write(Head(position=records[-1].position, digest=records[-1].digest))
        super()._commit(records)


class _NeverSynced:
    """Planted fault: an anchor file whose sync does nothing."""

    def __init__(self, file: OpenFile) -> None:
        self.write_at = file.write_at
        self.close = file.close

    def sync(self) -> None:
        pass


class UnsyncedAnchor:
    """The `Files` port with that fault."""

    def __init__(self, files: Files) -> None:
        self.size, self.read, self.names, self.rename = files.size, files.read, files.names, files.rename
        self.remove, self.make_folder, self.sync_folder = files.remove, files.make_folder, files.sync_folder
        self._open = files.open

    def open(self, path: Path, *, create: bool) -> OpenFile:
        file = self._open(path, create=create)
        return file if create else _NeverSynced(file)


class Lineage:
    """One history of appends, through any number of power cuts."""

    def __init__(self, home: Path, vfs: SimVfs, chance: random.Random, planted: Planted) -> None:
        self.home, self.vfs, self.chance, self.planted = home, vfs, chance, planted
        self.acknowledged: list[bytes] = []
        self.cut_off: list[bytes] = []
        self.before_last = 0
        self.images: dict[int, set[bytes]] = {}
        vfs.disk = SimDisk(chance)

    def open(self) -> SqliteJournal:
        disk = self.vfs.disk
        files: Files = UnsyncedAnchor(disk.files) if self.planted == "anchor-unsynced" else disk.files
        kind = AnchorFirst if self.planted == "anchor-before-commit" else SqliteJournal
        journal = kind.open(self.home, vfs=self.vfs.name, files=files)
        # Checkpoints often, for they are where a journal can be cut most interestingly.
        journal._writer.pragma("wal_autocheckpoint", self.chance.choice((2, 5, 20, 1_000)))
        if self.planted == "synchronous-normal":
            journal._writer.pragma("synchronous", 1)
        return journal

    def live(self, tally: Tally) -> None:
        """Work until the power is cut."""
        disk = self.vfs.disk
        disk.cut_after(self.chance.randint(1, OPERATIONS_PER_LIFE_MAX))
        journal = self.open()
        try:
            while not disk.dead:
                act = self.chance.random()
                if act < 0.04:
                    journal.close()
                    journal = self.open()
                elif act < 0.08:
                    self._save_image(journal)
                else:
                    self._append(journal, tally)
        finally:
            journal.close()

    def _append(self, journal: SqliteJournal, tally: Tally) -> None:
        count = self.chance.choice((1, 1, 2, 5))
        size = self.chance.choice((0, 100, 1_000, 9_000))
        events: list[Event] = [sized(len(self.acknowledged) + n, size) for n in range(count)]
        self.cut_off = [encode_event(event)[2] for event in events]
        last = journal.append(events, at_ms=len(self.acknowledged))
        if not self.vfs.disk.dead:
            self.before_last = len(self.acknowledged)
            self.acknowledged += self.cut_off
            self.cut_off = []
            assert last == len(self.acknowledged), "a position is the number of events up to it"
            tally.appends_acknowledged += 1
            tally.events_acknowledged += count

    def _save_image(self, journal: SqliteJournal) -> None:
        position = journal.head().position
        image = self.chance.randbytes(self.chance.choice((10, 2_000)))
        self.images.setdefault(position, set()).add(image)
        journal.save_image(position, BUILD, image)

    def reboot(self, tally: Tally) -> bool:
        """Find the disk as the cut left it and check it; False ends the lineage."""
        tally.cuts += 1
        for name in self.home.glob("journal.*"):  # real, and hold SQLite's locks and shared memory only
            name.unlink()
        self.vfs.disk = disk = self.vfs.disk.rebooted()
        anchored = decode_anchor(disk.files.read(self.home / ANCHOR_NAME) or b"")
        try:
            journal = self.open()
        except SteersmanError:
            tally.refused_to_open += 1
            tally.acknowledged_lost += self._stored() < len(self.acknowledged)
            return False
        with contextlib.closing(journal):
            return self._check(journal, anchored.head.position if anchored else 0, tally)

    def _stored(self) -> int:
        """How many rows a journal holds that would not open."""
        try:
            reader = SqliteJournal.open_reader(self.home, vfs=self.vfs.name, files=self.vfs.disk.files)
        except SteersmanError:
            return 0
        with contextlib.closing(reader):
            return reader.verify().rows

    def _check(self, journal: SqliteJournal, anchored: int, tally: Tally) -> bool:
        failures = tally.failures()
        found = [record.body for record in journal.read()]
        known, rest = found[: len(self.acknowledged)], found[len(self.acknowledged) :]
        tally.acknowledged_lost += known != self.acknowledged
        tally.torn_appends += rest not in ([], self.cut_off)
        tally.chain_broken += journal.verify().problems != ()
        tally.anchor_lagging += not self.before_last <= anchored <= len(found)
        tally.cut_off_kept += bool(rest)
        tally.cut_off_dropped += bool(self.cut_off) and not rest
        loaded = journal.load_image(BUILD)
        if loaded is not None:
            tally.images_returned += 1
            tally.image_wrong += loaded[1] not in self.images.get(loaded[0], set())
        if rest:
            self.before_last, self.acknowledged = len(self.acknowledged), found
        self.cut_off = []
        return tally.failures() == failures


def run(cuts: int, seed: int, planted: Planted = "none") -> Tally:
    """That many power cuts. A failing lineage is abandoned, a new one begun."""
    tally, chance = Tally(), random.Random(seed)
    vfs = SimVfs(f"power-cut-{seed}-{planted}")
    try:
        with tempfile.TemporaryDirectory(prefix="power-cut-") as folder:
            while tally.cuts < cuts:
                tally.lineages += 1
                home = Path(folder) / str(tally.lineages)
                home.mkdir()
                lineage = Lineage(home, vfs, chance, planted)
                for _ in range(min(CUTS_PER_LINEAGE, cuts - tally.cuts)):
                    lineage.live(tally)
                    if not lineage.reboot(tally):
                        break
    finally:
        vfs.unregister()
    return tally


def measure(cuts: int = 1_000, seed: int = 1) -> dict[str, float]:
    """For bench/run.py: cuts, and acknowledged events lost in them."""
    tally = run(cuts, seed)
    return {"power_cuts": tally.cuts, "power_cut_failures": tally.failures()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cuts", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--planted", choices=get_args(Planted), default="none")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    tally = run(chosen.cuts, chosen.seed, chosen.planted)
    figures = msgspec.to_builtins(tally)
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):22} {value:>9,}")
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"seed": chosen.seed, "planted": chosen.planted, "seconds": seconds, **figures}))
    return 1 if tally.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
