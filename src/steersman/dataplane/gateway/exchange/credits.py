"""Which link takes the next batch.

Theory: a link has as many credits as batches it may have under way, and this is the only account of them.
Links lie in levels by how many they have; the least loaded goes first, and within a level the one that has
waited longest. A replica that takes one batch at a time (`batches_max` 1 or 2) gets a second one to lie ready
only while batches are so short that it would idle for the time of a round trip between two; with longer ones
the second would only wait there instead of here, where it can still grow and be reordered. A replica that
says more than PIPE runs batches side by side, and gets all it says.
"""

from heapq import heappop, heappush

from steersman.dataplane.gateway.exchange.batch import Batch
from steersman.dataplane.gateway.exchange.link import Link

PIPE = 2
SHORT_S = 0.002
"""Batches shorter than this are sent ahead."""


class Credits:
    """The links of one pool that take batches. `servers`: batches that make progress at once."""

    __slots__ = ("_due", "_levels", "_mixed", "acquired", "links", "released", "servers")

    def __init__(self) -> None:
        self._levels: list[dict[Link, None]] = [{}]
        self._mixed = False
        self._due: list[tuple[float, int, Batch]] = []  # lazily: a batch that is over leaves at the top
        self.links: dict[Link, None] = {}
        self.servers = 0
        self.acquired = self.released = 0

    @property
    def idle(self) -> int:
        """Links with nothing under way."""
        return len(self._levels[0])

    def join(self, link: Link) -> None:
        """A link may take batches from now on."""
        link.accepting = True
        self.links[link] = None
        self._put(link)
        self._changed()

    def leave(self, link: Link) -> None:
        """It may not any more."""
        if link.accepting:
            link.accepting = False
            del self.links[link]
            del self._levels[len(link.batches)][link]
            self._changed()

    def free(self, run_s: float) -> Link | None:
        """The link for the next batch while batches take so long (0: not known); None when none is free."""
        for load, links in enumerate(self._levels):
            for link in links:
                if _depth(link, run_s) > load:
                    return link
                if not self._mixed:
                    break  # the others of this level are like it
        return None

    def wait_s(self, run_s: float, now: float) -> float:
        """Predicted seconds until a batch can begin to run."""
        if self.idle:
            return 0.0
        due = self._due
        while due and due[0][2].over:
            heappop(due)
        link = self.free(run_s)
        if not due or (link is not None and link.batches_max > PIPE):
            return 0.0
        return max(due[0][0] - now, 0.0)

    def taken(self, link: Link, batch: Batch, run_s: float) -> None:
        """It has one batch more, that will run for so long."""
        self.acquired += 1
        begins = batch.sent if link.batches_max > PIPE else max(batch.sent, link.due)
        link.due = begins + run_s
        heappush(self._due, (link.due, self.acquired, batch))
        if link.accepting:
            del self._levels[len(link.batches) - 1][link]
            self._put(link)

    def given_back(self, link: Link) -> None:
        """It has one batch less."""
        self.released += 1
        if link.accepting:
            del self._levels[len(link.batches) + 1][link]
            self._put(link)

    def _put(self, link: Link) -> None:
        load = len(link.batches)
        while len(self._levels) <= load:
            self._levels.append({})
        self._levels[load][link] = None

    def _changed(self) -> None:
        self.servers = sum(link.batches_max if link.batches_max > PIPE else 1 for link in self.links)
        self._mixed = len({link.batches_max for link in self.links}) > 1


def _depth(link: Link, run_s: float) -> int:
    most = link.batches_max
    if most > PIPE or most == 1:
        return most
    return most if 0 < run_s < SHORT_S else 1
