"""`steer replay --journal FILE --policy FILE …`: one's own history under several policies, side by side."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from steersman.app.cli.picture import page
from steersman.app.cli.say import columns, note, say, say_json
from steersman.app.policy_file import read_policy
from steersman.app.settings import check_home
from steersman.journal.connect import DATABASE_NAME
from steersman.journal.sqlite import SqliteJournal
from steersman.model.errors import ConflictError, HomeError
from steersman.model.policy import Policy
from steersman.sensors.runs import RunSensor
from steersman.sim.replay.policies import RECORDED, SIMULATED, Comparison, Metric, compare
from steersman.sim.replay.result import Progress

POLICIES_MAX = 16
"""The most policies side by side."""
NAME_CHARS_MAX = 24


def home_of(journal: Path) -> Path:
    """The home of a journal, given as its folder or as the file in it. Raises HomeError."""
    if journal.is_file():
        if journal.name != DATABASE_NAME:
            raise HomeError(
                f"{journal} is not a home's journal", hint=f"give the home, or the file {DATABASE_NAME} in it"
            )
        return journal.parent
    if not journal.exists():
        raise HomeError(
            f"there is no home at {journal}", hint="give --journal FOLDER, or a problem and its trace"
        )
    return journal


def read_policies(files: Sequence[Path]) -> list[tuple[str, Policy]]:
    """The policies of these files, named after them. Raises SpecError, ConflictError."""
    if len(files) > POLICIES_MAX:
        raise ConflictError(f"these are {len(files)} policies", hint=f"give at most {POLICIES_MAX}")
    found: dict[str, Policy] = {}
    for file in files:
        name = file.stem[:NAME_CHARS_MAX]
        if name in found or name in (RECORDED, SIMULATED):
            raise ConflictError(
                f"two policies are called {name!r}", hint="rename a file: its name is the policy's"
            )
        found[name] = read_policy(file)
    return list(found.items())


def replay_policies(
    journal: Path, files: Sequence[Path], html: Path | None, progress: Progress, *, as_json: bool
) -> int:
    """Run the history of a journal under each policy; print, and draw if asked. Raises SteersmanError."""
    policies = read_policies(files)
    home = home_of(journal)
    check_home(home)
    with contextlib.closing(SqliteJournal.open_reader(home)) as reader:
        total = reader.check_end().position
        found = compare(reader.read(), total, policies, RunSensor, progress)
    if html is not None:
        _write(html, page(found))
    if as_json:
        say_json(found)
        return 0
    _say(found)
    if html is not None:
        note(f"the picture is in {html}")
    return 0


def _write(path: Path, text: str) -> None:
    """The file whole or not at all. Raises ConflictError."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConflictError(
            f"cannot write {path}: {error.strerror}", hint="give another --html FILE"
        ) from error


def _say(found: Comparison) -> None:
    say(f"{found.events:,} events in {found.span_s / 3600:,.2f} h; {found.jobs:,} jobs ended by themselves")
    say("")
    names = [column.name for column in found.columns]
    rows = [
        (metric, *(shown(metric, column.metrics[metric]) for column in found.columns))
        for metric in found.columns[0].metrics
    ]
    say(columns(("METRIC", *names), rows))
    for reason, count in found.dropped.items():
        note(f"not replayed as it was: {count:,} {reason}")


def shown(metric: str, value: Metric) -> str:
    """A metric for people. What is None is unknown, or a mean of nothing."""
    if value is None:
        return "unknown" if metric in ("cost_usd", "slo_missed_share") else "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4f}" if metric.endswith(("_share", "utilisation", "_usd")) else f"{value:,.2f}"
