"""What replicas that ended badly left behind: why they ended, and the last line of their log.

Theory of operation. The state knows how the last run of a job ended for as long as the job is there. A
replica of a revision that was given up is not: how it ended stands in the journal, which is read once for
each, and what it said in its log, which outlives it. Neither is part of a decision; both are for people.
"""

from itertools import islice
from pathlib import Path

from steersman.app import audit, logs
from steersman.explain.services import Heard, Told, culprits
from steersman.journal.query import Readable
from steersman.model.events import RankExited
from steersman.model.snapshot import Snapshot
from steersman.ports import run_dir

CULPRITS_MAX = 20
"""The most replicas whose logs one answer looks into."""


class Failures:
    """One home's. Reads files and the journal: to be called beside the event loop."""

    def __init__(self, home: Path, journal: Readable) -> None:
        self._home = home
        self._journal = journal
        self._causes: dict[str, str] = {}

    def look(self, snapshot: Snapshot) -> Heard:
        """What is known of the replicas that are why a service is not as it should be, by name."""
        names = list(islice(culprits(snapshot), CULPRITS_MAX))
        self._causes = {name: self._cause(snapshot, name) for name in names if name not in snapshot.workloads}
        return {name: Told(cause=self._causes.get(name, ""), line=self._line(name)) for name in names}

    def _cause(self, snapshot: Snapshot, name: str) -> str:
        """How the last run of a replica that is forgotten ended; empty when the journal does not tell."""
        if name in self._causes:
            return self._causes[name]
        service = snapshot.services.get(name.rpartition(".")[0])
        cause = ""
        for _, _, event in audit.about(self._journal, name, service.declared_at - 1 if service else 0):
            if isinstance(event, RankExited) and event.run.rpartition(".")[0] == name:
                cause = event.cause
        return cause

    def _line(self, name: str) -> str:
        runs = logs.runs_of(self._home, name)
        return logs.last_line(self._home / run_dir.RUNS / runs[-1] / "0") if runs else ""
