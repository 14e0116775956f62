"""What changes between two declarations of one workload, and whether that needs a new run.

Theory: a declaration is laid out flat as (path, value, words) with the paths that users write; the difference
of two declarations is the difference of the two lists. A path takes effect in place when deciders read it
anew in every cycle; everything else is part of how the program was started.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from steersman.model.units import format_bytes, format_cpu, format_duration_ms
from steersman.model.workload import Job, Workload

IN_PLACE = ("priority", "owner", "labels", "retry", "max_duration", "stop_duration")
"""Keys whose change needs no new run; `checkpoint` too, but for being switched on or off."""
_IN_PLACE_CHECKPOINT = ("checkpoint.interval", "checkpoint.min", "checkpoint.max", "checkpoint.keep")

Words = dict[str, tuple[object, str]]


FILES_CHANGED = "its files changed"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One path, before and after, as words; None where it was or will be absent.

    `note` says what changed where the words before and after are the same.
    """

    path: str
    before: str | None
    after: str | None
    note: str = ""


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """`restarts`: a new run is needed for the change to take effect."""

    kind: Literal["created", "changed", "unchanged", "removed"]
    changes: tuple[Change, ...] = ()
    restarts: bool = False


def diff(old: Workload | None, new: Workload | None) -> Diff:
    """What changes from `old` to `new`, where None is no declaration. Both have one name."""
    assert old is None or new is None or old.name == new.name, "only declarations of one name can be compared"
    before, after = _flat(old), _flat(new)
    changes = tuple(
        _change(path, before.get(path), after.get(path))
        for path in _paths(before, after)
        if _value(before.get(path)) != _value(after.get(path)) or _files_changed(path, old, new)
    )
    if old is None or new is None:
        kind: Literal["created", "removed", "unchanged"] = (
            "created" if new is not None else "removed" if old is not None else "unchanged"
        )
        return Diff(kind=kind, changes=changes, restarts=new is not None)
    if not changes:
        return Diff(kind="unchanged")
    return Diff(kind="changed", changes=changes, restarts=not all(_in_place(each.path) for each in changes))


def _paths(before: Words, after: Words) -> list[str]:
    """Every path once, in the order of a declaration: those of `after`, then those that go."""
    return [*after, *(path for path in before if path not in after)]


def _value(pair: tuple[object, str] | None) -> object:
    return None if pair is None else pair[0]


def _files_changed(path: str, old: Workload | None, new: Workload | None) -> bool:
    """Whether the workdir holds other files than it did. What an older build did not record is unknown."""
    if path != "workdir" or old is None or new is None:
        return False
    was, now = old.body.workdir_digest, new.body.workdir_digest
    return was is not None and now is not None and was != now


def _change(path: str, before: tuple[object, str] | None, after: tuple[object, str] | None) -> Change:
    old, new = (None if pair is None else pair[1] for pair in (before, after))
    if before == after:
        return Change(path=path, before=old, after=new, note=FILES_CHANGED)
    if old is not None and old == new:  # two amounts that only differ in what rounding hides
        old, new = str(_value(before)), str(_value(after))
    return Change(path=path, before=old, after=new)


def _in_place(path: str) -> bool:
    return path in _IN_PLACE_CHECKPOINT or path.split(".", 1)[0] in IN_PLACE


def _flat(workload: Workload | None) -> Words:
    """Path → (value, words). Absent optional values are left out."""
    if workload is None:
        return {}
    words = {path: pair for path, pair in _of_workload(workload) if pair[0] is not None}
    words.update((path, pair) for path, pair in _of_job(workload.body) if pair[0] is not None)
    return words


def _of_workload(workload: Workload) -> Iterator[tuple[str, tuple[object, str]]]:
    resources = workload.resources
    yield "resources.cpus", (resources.cpu_milli, format_cpu(resources.cpu_milli))
    yield "resources.memory", (resources.memory_bytes, format_bytes(resources.memory_bytes))
    for kind, count in resources.accelerators:
        yield f"resources.accelerators.{kind}", (count, str(count))
    yield "queue", _text(workload.queue)
    yield "priority", (workload.priority, str(workload.priority))
    yield "owner", _text(workload.owner)
    for name, value in workload.labels:
        yield f"labels.{name}", _text(value)


def _of_job(job: Job) -> Iterator[tuple[str, tuple[object, str]]]:
    yield "num_nodes", (job.num_nodes, str(job.num_nodes))
    yield "workdir", _text(job.workdir)
    yield "setup", _text(job.setup)
    yield "run", _text(job.run)
    for name, value in job.envs:
        yield f"envs.{name}", _text(value)
    for secret in job.secrets:
        yield f"secrets.{secret.env}", _text(secret.secret)
    for each in job.inputs:
        yield f"inputs.{each.name}", _text(f"{each.workload}/{each.artifact}")
    for artifact in job.artifacts:
        yield f"artifacts.{artifact.name}", _text(artifact.path)
    yield "max_duration", _duration(job.max_duration_ms)
    yield "stop_duration", _duration(job.stop_grace_ms)
    yield from _of_rules(job)


def _of_rules(job: Job) -> Iterator[tuple[str, tuple[object, str]]]:
    retry, checkpoint = job.retry, job.checkpoint
    yield "retry.on_events", (retry.on_events, ", ".join(retry.on_events) or "none")
    yield "retry.attempts", (retry.attempts_max, str(retry.attempts_max))
    yield "retry.duration", _duration(retry.duration_ms_max)
    yield "retry.exit_codes.retry", _codes(retry.exit_codes_retry)
    yield "retry.exit_codes.fatal", _codes(retry.exit_codes_fatal)
    if checkpoint.enabled:
        yield "checkpoint", (True, "on")
        interval = checkpoint.interval_ms
        yield "checkpoint.interval", ("auto", "auto") if interval is None else _duration(interval)
        yield "checkpoint.min", _duration(checkpoint.interval_ms_min)
        yield "checkpoint.max", _duration(checkpoint.interval_ms_max)
        yield "checkpoint.keep", (checkpoint.keep_last, str(checkpoint.keep_last))


def _text(value: str | None) -> tuple[object, str]:
    return value, value or ""


def _duration(value_ms: int | None) -> tuple[object, str]:
    return value_ms, "" if value_ms is None else format_duration_ms(value_ms)


def _codes(codes: tuple[int, ...]) -> tuple[object, str]:
    return codes or None, ", ".join(str(code) for code in codes)
