"""What a submission changes, in lines, for `up` and `plan`; and what a replica that failed said last."""

from collections.abc import Sequence

from steersman.app.cli.say import note, one_line, say
from steersman.app.wire import ChangeView, DeclaredView, PlanView, ServiceRow, UpView

SIGNS = {"created": "+", "changed": "~", "again": "+", "unchanged": "="}
VALUE_CHARS_MAX = 60


def say_warnings(warnings: Sequence[str]) -> None:
    """What is not honoured."""
    for warning in warnings:
        note(f"warning: {warning}")


def say_last_words(row: ServiceRow) -> None:
    """The last line of the log of who ended badly, when that is why a service is not as it should be."""
    if row.said:
        say(f"    {row.failing} said last: {one_line(row.said)}")


def say_declared(found: UpView | PlanView) -> None:
    """One line for the fleet, the gateway, each queue, job and service, and one for each of their changes."""
    if found.fleet is not None:
        say(f"~ fleet {found.fleet}")
    if found.gateway is not None:
        say(f"~ gateway {found.gateway}")
        say_changes(found.gateway_changes)
    for queue in found.queues:
        say(f"~ queue {queue}")
    for each in found.workloads:
        say(f"{SIGNS[each.kind]} {each.name}: {_words(each)}")
        say_changes(each.changes)
        if each.note:
            say(f"    {each.note}")


def say_changes(changes: Sequence[ChangeView]) -> None:
    """A line for each."""
    for change in changes:
        say(f"    {change.path}: {_change(change)}")


def _words(each: DeclaredView) -> str:
    anew = "a new revision" if each.service else "a new run"
    match each.kind:
        case "created":
            return "declared"
        case "again":
            return f"unchanged, asked for again{': ' + anew if each.restarts else ''}"
        case "changed":
            return f"changed: {anew}" if each.restarts else "changed in place"
        case "unchanged":
            return "unchanged"


def _change(change: ChangeView) -> str:
    if change.note:
        return change.note
    if change.before is None:
        return f"set to {_short(change.after)}"
    if change.after is None:
        return f"{_short(change.before)} taken away"
    return f"{_short(change.before)} → {_short(change.after)}"


def _short(text: str | None) -> str:
    shown = repr(text or "") if "\n" in (text or "") or not text else text
    return shown if len(shown) <= VALUE_CHARS_MAX else shown[:VALUE_CHARS_MAX] + "…"
