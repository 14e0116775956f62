"""From the journal to the state: the image if there is a good one, and the fold of what came after."""

from collections.abc import Iterator
from itertools import islice

from steersman.model.codec import decode_event
from steersman.model.events import Event
from steersman.model.snapshot import Snapshot
from steersman.ports.journal import Journal
from steersman.state.fold import fold
from steersman.state.image import decode_image

FOLD_EVENTS = 10_000


def restore(journal: Journal, build: str) -> Snapshot:
    """The state at the journal's head. An image that is missing, damaged or of another build is not needed.

    Raises JournalCorrupt or JournalNewer when an event cannot be read.
    """
    stored = journal.load_image(build)
    snapshot = Snapshot()
    if stored is not None:
        decoded = decode_image(stored[1])
        if decoded is not None and decoded.position == stored[0]:
            snapshot = decoded
    return replay(journal, snapshot)


def replay(journal: Journal, snapshot: Snapshot) -> Snapshot:
    """Fold everything after the snapshot's position."""
    events = _events(journal, snapshot.position)
    while batch := list(islice(events, FOLD_EVENTS)):
        snapshot = fold(snapshot, batch)
    return snapshot


def _events(journal: Journal, after: int) -> Iterator[tuple[int, Event]]:
    for record in journal.read(after):
        yield record.position, decode_event(record.type, record.version, record.body)
