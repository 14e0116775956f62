"""What a submission changes, in lines, for `up` and `plan`."""

from collections.abc import Sequence

from steersman.app.cli.say import note, say
from steersman.app.wire import ChangeView, DeclaredView

SIGNS = {"created": "+", "changed": "~", "again": "+", "unchanged": "="}
VALUE_CHARS_MAX = 60


def say_warnings(warnings: Sequence[str]) -> None:
    """What is not honoured."""
    for warning in warnings:
        note(f"warning: {warning}")


def say_declared(workloads: Sequence[DeclaredView], fleet: str | None, gateway: str | None = None) -> None:
    """One line a job or service, and one for each of its changes."""
    if fleet is not None:
        say(f"~ fleet {fleet}")
    if gateway is not None:
        say(f"~ gateway {gateway}")
    for each in workloads:
        say(f"{SIGNS[each.kind]} {each.name}: {_words(each)}")
        for change in each.changes:
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
