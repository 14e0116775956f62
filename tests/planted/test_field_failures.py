"""Failures that others had in the field, each planted here: which bug, and which checker finds it.

Theory: the table below holds no bugs of its own. It names cases of the planted suites, which run there; this
test sees to it that every one of them is there, that its checker is the one named, that there are enough, and
that docs/planted-bugs.md shows the same table. The numbers are those of the list of known failures that the
design began with; the references are public.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

from bench import power_cut
from tests.planted import test_planted, test_planted_services
from tests.properties import test_monotone
from tests.sim import test_planted as test_planted_storms
from tests.sim import test_small_world

PAGE = Path(__file__).resolve().parents[2] / "docs" / "planted-bugs.md"
FAILURES_MIN, BUGS_MIN = 20, 20


class Failure(NamedTuple):
    """`planted`: suite and bug of each case that plays it."""

    number: str
    where: str
    what: str
    planted: tuple[str, ...]


FAILURES = (
    Failure("F1", "skypilot#4410", "cancelled is said while it runs and is billed",
            ("world: finishes what still runs",)),
    Failure("F2", "skypilot PR 9683", "several controllers for one pool",
            ("world: goes on with the old epoch",)),
    Failure("F3", "skypilot PR 10114", "inconclusive is read as dead",
            ("home: takes unknown for dead", "world: takes blind for gone")),
    Failure("F4", "skypilot PR 9868", "user code runs twice; what has ended changes its end",
            ("storm: begun twice", "home: raises the dead", "storm: another exit code is recorded")),
    Failure("F5", "skypilot PR 10061", "the controller's death is taken for the work's",
            ("world: takes all for dead after a restart",)),
    Failure("F6", "skypilot PR 9748", "a store that fails is decided on",
            ("storm: what was not stored is acknowledged",)),
    Failure("F7", "skypilot#1507", "recovers endlessly", ("home: forgets to count tries",)),
    Failure("F9", "skypilot#7205", "a new launch takes the name of one that still ends",
            ("home: names runs by their try",)),
    Failure("F12", "dstack#3453", "a crash between doing and writing down; created though it failed",
            ("storm: the intent is recorded after the act", "world: takes a lost answer for no start",
             "world: never makes up for a lost start")),
    Failure("F13", "dstack#1551", "marked ended while alive; freed on a timeout",
            ("world: takes a stop for an end", "home: ends a lease by time")),
    Failure("F15", "dstack#3449", "something is added to what is going",
            ("storm: stale decisions are taken", "storm: an ended service is decided on")),
    Failure("F17", "nomad#2419", "more instances than were asked for", ("services: forgets the surge",)),
    Failure("F18", "kueue#14811", "who was evicted, or has started, keeps what was kept",
            ("world: keeps what was reserved", "home: forgets to book what is kept")),
    Failure("F19", "kueue PR 11553", "more is admitted than there is",
            ("storm: more is leased than there is", "home: starts anywhere")),
    Failure("F20", "kueue#12656", "admitted again and again", ("home: waits without bound",)),
    Failure("F21", "kubernetes#130145", "devices are counted from old books",
            ("home: takes a redeclared node for empty", "home: forgets devices")),
    Failure("F23", "kubernetes#42649", "what missed its time never runs again", ("world: forgets to wake",)),
    Failure("F24", "client-go#448", "two leaders, and nothing fenced", ("storm: the epoch is not raised",)),
    Failure("F25", "AWS, 19 October 2025", "a plan is applied to what has moved on",
            ("storm: an old look proves an absence",)),
    Failure("F28", "nats-server#7564", "acknowledged before it was synced",
            ("journal: synchronous-normal", "journal: anchor-unsynced")),
    Failure("F30", "ray PR 63995", "told to end while requests are still sent to it",
            ("storm: the gateway is told too late", "services: lists what retires")),
    Failure("F31", "ray#43034", "what is ready is ended before what only starts",
            ("services: retires the ready first",)),
    Failure("F32", "ray#61551", "scales on figures that are not known",
            ("services: reads unknown as zero",)),
    Failure("F33", "knative#3759", "the old go before the new are ready",
            ("services: replaces before the new is ready", "services: spares one too many")),
    Failure("F34", "knative#12538", "a preemption is taken for a failed version",
            ("services: takes what was lost for a crash",)),
    Failure("F38", "LitServe PR 532", "healthy is what runs, not what answers",
            ("services: takes ready for proven",)),
    Failure("F43", "flower#4844", "a node that comes back is not taken back",
            ("world: never takes a node back",)),
    Failure("–", "every gang scheduler", "half a gang is begun",
            ("home: starts half a gang", "world: starts half a gang")),
    Failure("–", "every preemption", "who is equal yields, or everybody",
            ("home: preempts its equals", "home: preempts everyone")),
    Failure("–", "every clock", "time goes back", ("world: believes its clock",)),
    Failure("–", "every sort", "an order that follows from no data", ("home: sorts by less than all",)),
    Failure("–", "every limit", "asking for less makes it impossible",
            ("relaxed: keeps nodes for large gangs", "relaxed: gives up at one number of tries")),
)  # fmt: skip


def _cases() -> Iterator[tuple[str, str]]:
    """Every planted bug that the table can name, and what has to find it."""
    for suite, cases in (
        ("home", test_planted.CASES),
        ("services", test_planted_services.CASES),
        ("relaxed", test_monotone.CASES),
    ):
        for plant, law in cases:
            yield f"{suite}: {_words(plant.__name__)}", _words(law.__name__)
    for name, _, _, found_by in test_planted_storms.BUGS:
        yield f"storm: {name}", _words(found_by.replace("|", " or ") or "any checker")
    for plant, found_by, _ in test_small_world.CASES:
        yield f"world: {_words(plant.__name__)}", _words(found_by)
    for fault in get_args(power_cut.Planted):
        yield f"journal: {fault}", "nothing acknowledged is lost"


def _words(name: str) -> str:
    return name.strip("_").replace("_", " ")


CASES = dict(_cases())


def _table() -> list[str]:
    return [
        f"| {failure.number} | {failure.where} | {failure.what} | {bug} | {CASES[bug]} |"
        for failure in FAILURES
        for bug in failure.planted
    ]


def test_every_failure_is_planted() -> None:
    """Each names bugs that the planted suites have, and there are enough of both."""
    named = [bug for failure in FAILURES for bug in failure.planted]
    assert [bug for bug in named if bug not in CASES] == []
    assert len(set(named)) == len(named) >= BUGS_MIN
    numbers = [failure.number for failure in FAILURES if failure.number != "–"]
    assert len(set(numbers)) == len(numbers) >= FAILURES_MIN


def test_the_page_shows_the_table() -> None:
    """docs/planted-bugs.md has just these rows."""
    shown = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (F\d|–)", line)]
    assert shown == _table()
