"""`steer logs`: a run's output, whole or followed into the runs that come after it.

Of a service it is that of its newest replica, which is named first; following stays with that one.
"""

import sys
import time
from typing import Annotated

import msgspec
import typer

from steersman.app.cli.options import Home, Json, Name, connect, patient
from steersman.app.cli.patient import PatientClient
from steersman.app.cli.say import clean, note
from steersman.app.client import Client, path
from steersman.app.wire import LogView, ServiceView, WorkloadView
from steersman.model.errors import SteersmanError

POLL_SECONDS = 0.3

app = typer.Typer(add_completion=False)

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the workload has ended.")]
Rank = Annotated[int, typer.Option("--rank", min=0, help="Which rank of a gang.")]
RunName = Annotated[str | None, typer.Option("--run", help="Which run; else the last.", show_default=False)]


@app.command()
def logs(
    name: Name,
    *,
    follow: Follow = False,
    rank: Rank = 0,
    run: RunName = None,
    json: Json = False,
    home: Home = None,
) -> int:
    """Show the output of a job; with -f until it has ended, through all its runs.

    Of a service: that of its newest replica. A replica is called like digits.3; `gateway` is the gateway.
    """
    with connect(home) as client:
        if follow:
            _Reader(patient(client, home), name, rank, as_json=json).follow(run)
        else:
            _Reader(client, name, rank, as_json=json).all(run)
    return 0


class _Reader:
    def __init__(self, client: Client | PatientClient, name: str, rank: int, *, as_json: bool) -> None:
        self._client = client
        self._name = name
        self._rank = rank
        self._as_json = as_json

    def all(self, run: str | None) -> LogView:
        """Everything there is of a run now; its last piece."""
        offset = ""
        while True:
            piece = self._piece(run, offset)
            self._take_name(piece)
            self._say(piece)
            if piece.end:
                return piece
            run, offset = piece.run, piece.next_offset

    def follow(self, run: str | None) -> None:
        """Everything of a run, and of those after it when none was named, until the workload has ended."""
        named = run is not None
        piece = self._first(run)
        while True:
            self._take_name(piece)
            self._say(piece)
            if piece.end and not piece.live:
                following = None if named else self._following(piece.run)
                if following is None:
                    return
                note(f"[run {following}]")
                piece = self._piece(following, "")
                continue
            if piece.end:
                time.sleep(POLL_SECONDS)
            piece = self._piece(piece.run, piece.next_offset)

    def _first(self, run: str | None) -> LogView:
        """The first piece; waits for a workload that has not run yet."""
        while True:
            try:
                return self._piece(run, "")
            except SteersmanError as error:
                if error.code != "not-run-yet" or self._settled():
                    raise
            time.sleep(POLL_SECONDS)

    def _following(self, run: str) -> str | None:
        """The run after this one, waited for; None when there will be none."""
        while True:
            try:
                row = self._workload().row
            except SteersmanError as error:
                if error.code == "unknown-workload":  # it was removed meanwhile
                    return None
                raise
            if row.run is not None and row.run != run:
                return row.run
            if row.settled:
                return None
            time.sleep(POLL_SECONDS)

    def _settled(self) -> bool:
        """Whether nothing runs by itself any more."""
        try:
            return self._workload().row.settled
        except SteersmanError as error:
            if error.code != "is-service":
                raise
        return self._client.get(path("services", self._name), ServiceView).row.settled

    def _take_name(self, piece: LogView) -> None:
        """Go on with the replica that a service's log is of, and say which."""
        owner = piece.run.rpartition(".")[0]
        if owner != self._name:
            if owner.startswith(f"{self._name}."):
                note(f"[replica {owner}]")
            self._name = owner

    def _workload(self) -> WorkloadView:
        return self._client.get(path("workloads", self._name), WorkloadView)

    def _piece(self, run: str | None, offset: str) -> LogView:
        query = {"rank": self._rank, "run": run, "offset": offset or None}
        return self._client.get(path("logs", self._name), LogView, query)

    def _say(self, piece: LogView) -> None:
        if piece.lost:
            note("[older output was rotated away]")
        if self._as_json:
            if piece.text:
                sys.stdout.write(msgspec.json.encode(piece).decode() + "\n")
        else:
            sys.stdout.write(clean(piece.text))
        sys.stdout.flush()
