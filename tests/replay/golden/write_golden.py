"""Writes a golden journal with today's build, to be kept for ever. See README.md beside this file.

python -m tests.replay.golden.write_golden v2
"""

import contextlib
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.contract.journal_events import one_of_each

from steersman.journal import SqliteJournal
from steersman.model.codec import decode_event, encode_event
from steersman.ports.journal import Record

GOLDEN = Path(__file__).parent
START_MS = 1_760_000_000_000


def described(record: Record) -> dict[str, Any]:
    """What a golden promises of a record: its stored bytes, and what they mean to today's build."""
    event = decode_event(record.type, record.version, record.body)
    return {
        "position": record.position,
        "at_ms": record.at_ms,
        "type": record.type,
        "version": record.version,
        "body": record.body.decode(),
        "digest": record.digest.hex(),
        "means": json.loads(encode_event(event)[2]),
    }


def write(target: Path) -> None:
    """Make the golden's folder: every event type once, and two in one append."""
    events = one_of_each()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        with contextlib.closing(SqliteJournal.open(home)) as journal:
            for number, event in enumerate(events[:-2]):
                journal.append([event], at_ms=START_MS + number)
            journal.append(events[-2:], at_ms=START_MS + len(events))
            records = [described(record) for record in journal.read()]
        target.mkdir()
        for name in ("journal.db", "journal.anchor"):
            (target / name).write_bytes((home / name).read_bytes())
    (target / "expected.json").write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2 or re.fullmatch(r"v\d+[a-z-]*", sys.argv[1]) is None:
        sys.exit("usage: python -m tests.replay.golden.write_golden v<number>")
    write(GOLDEN / sys.argv[1])
