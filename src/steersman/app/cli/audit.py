"""`steer audit`: everything that happened, listed, filtered, verified.

Reads the journal itself, so that it works whether or not a control plane runs, and trusts none.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import msgspec
import typer

from steersman.app.audit import Filter, check_types, entries, newest
from steersman.app.cli.options import Home, Json, settings_of, takes
from steersman.app.cli.say import note, say, say_json
from steersman.app.settings import Settings, check_home
from steersman.app.wire import EventView
from steersman.journal.reader import SqliteReader
from steersman.journal.sqlite import SqliteJournal
from steersman.model.errors import HomeError
from steersman.ports.journal import Verification

DAMAGED = 1
BODY_CHARS_MAX = 160
LIMIT_DEFAULT = 1_000

app = typer.Typer(add_completion=False)

Types = Annotated[list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")]
Subject = Annotated[str, typer.Option("--subject", help="Only events about this workload, run or node.")]
Start = Annotated[
    int | None,
    typer.Option(
        "--from", min=1, help="From this position on, the oldest first; else the newest.", show_default=False
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most so many events.")]
Verify = Annotated[bool, typer.Option("--verify", help="Read every row and compare it with the chain.")]


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What `audit --verify --json` prints."""

    rows: int
    position: int
    digest: str
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of `audit`."""

    types: Types = None
    subject: Subject = ""
    start: Start = None
    limit: Limit = LIMIT_DEFAULT
    verify: Verify = False
    json: Json = False
    home: Home = None


@app.command()
@takes(Asked)
def audit(asked: Asked) -> int:
    """List what happened last, or verify that none of it was altered or lost.

    Without --from the newest events that match are listed, in order; with it those from a position on, page
    by page. With --verify exits 1 when anything differs from what was acknowledged.
    """
    with _reader(settings_of(asked.home)) as reader:
        if asked.verify:
            return _say_verified(reader.verify(), as_json=asked.json)
        types = tuple(asked.types or ())
        check_types(types)
        wanted = Filter(types=types, subject=asked.subject)
        if asked.start is None:
            listed: Iterable[EventView] = newest(reader, wanted, asked.limit)
        else:
            listed = islice(entries(reader, wanted, asked.start - 1), asked.limit)
        if asked.json:
            say_json(list(listed))
        else:
            _say(listed, asked)
    return 0


@contextlib.contextmanager
def _reader(settings: Settings) -> Iterator[SqliteReader]:
    if not settings.home.exists():
        raise HomeError(
            f"there is no home at {settings.home}", hint="begin with `steer up FILE`, or give --home"
        )
    check_home(settings.home)
    reader = SqliteJournal.open_reader(settings.home)
    try:
        yield reader
    finally:
        reader.close()


def _say_verified(found: Verification, *, as_json: bool) -> int:
    if as_json:
        say_json(
            Verified(
                rows=found.rows,
                position=found.head.position,
                digest=found.head.digest.hex(),
                problems=found.problems,
            )
        )
    elif not found.problems:
        say(f"{found.rows} events, all as they were acknowledged; head sha256 {found.head.digest.hex()}")
    else:
        for problem in found.problems:
            note(f"error: {problem}")
        note("hint: restore the home from a backup; keep this one to learn what was altered")
    return DAMAGED if found.problems else 0


def _say(listed: Iterable[EventView], asked: Asked) -> None:
    count = position = 0
    for view in listed:
        say(_line(view))
        count, position = count + 1, view.position
    if count < asked.limit:
        return
    if asked.start is None:
        note("hint: there may be earlier ones; raise --limit, or read all of them with --from 1")
    else:
        note(f"hint: there may be more; go on with --from {position + 1}")


def _line(view: EventView) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(view.at_ms / 1000))
    body = {key: value for key, value in view.body.items() if key != "type"}
    words = msgspec.json.encode(body).decode()
    if len(words) > BODY_CHARS_MAX:
        words = words[:BODY_CHARS_MAX] + "…"
    return f"{view.position:>8}  {at}.{view.at_ms % 1000:03d}Z  {view.type:<22}  {words}"
