"""What changes between two declarations of one name, and whether that needs a new run or a new revision.

Theory: a declaration is laid out flat (`layout`) as (path, value, words) with the paths that users write; the
difference of two declarations is the difference of the two lists. A path takes effect in place when deciders
or the gateway read it anew; everything else is part of how the program was started.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from steersman.model.service import Gateway, OnnxModel, Service
from steersman.model.workload import Workload
from steersman.spec.layout import Pair, Words, of_gateway, of_service, of_workload

IN_PLACE = (
    "priority", "owner", "labels", "retry", "max_duration", "stop_duration", "spot_policy", "deadline",
    "work", "max_price",
)  # fmt: skip
"""Keys of a job whose change needs no new run; `checkpoint` too, but for being switched on or off."""
_IN_PLACE_CHECKPOINT = ("checkpoint.interval", "checkpoint.min", "checkpoint.max", "checkpoint.keep")
SERVICE_IN_PLACE = ("service", "slo", "model.inputs", "priority", "owner", "labels", "stop_duration")
"""Keys of a service whose change needs no new revision, with all that is below them."""
SERVICE_NEW = ("service.max_batch_size",)
"""What needs one all the same: a replica warms up for its largest batch."""

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


Files = tuple[str, str | None, str | None]
"""A path that stands for files, and the digest of what was and is in them; None where nobody knows."""


def diff(old: Workload | None, new: Workload | None) -> Diff:
    """What changes from `old` to `new`, where None is no declaration. Both have one name."""
    assert old is None or new is None or old.name == new.name, "only declarations of one name can be compared"
    files: tuple[Files, ...] = ()
    if old is not None and new is not None:
        files = (("workdir", old.body.workdir_digest, new.body.workdir_digest),)
    return _diff(of_workload(old), of_workload(new), files, _job_in_place)


def diff_services(old: Service | None, new: Service | None) -> Diff:
    """The same for services; `restarts`: a new revision is needed."""
    assert old is None or new is None or old.name == new.name, "only declarations of one name can be compared"
    files: tuple[Files, ...] = ()
    if old is not None and new is not None:
        workdir = ("workdir", old.workdir_digest, new.workdir_digest)
        files = (workdir, ("model.onnx", _content(old), _content(new)))
    return _diff(of_service(old), of_service(new), files, _service_in_place)


def diff_gateways(old: Gateway, new: Gateway) -> tuple[Change, ...]:
    """What changes from one gateway to another; all of it in place."""
    return _diff(of_gateway(old), of_gateway(new), (), lambda _: True).changes


def _diff(before: Words, after: Words, files: tuple[Files, ...], in_place: Callable[[str], bool]) -> Diff:
    """A declaration is never laid out as nothing: no words are no declaration."""
    changed = {path for path, was, now in files if was is not None and now is not None and was != now}
    changes = tuple(
        _change(path, before.get(path), after.get(path))
        for path in _paths(before, after)
        if _value(before.get(path)) != _value(after.get(path)) or path in changed
    )
    if not changes:
        return Diff(kind="unchanged")
    if not before or not after:
        return Diff(kind="created" if after else "removed", changes=changes, restarts=bool(after))
    return Diff(kind="changed", changes=changes, restarts=not all(in_place(each.path) for each in changes))


def _paths(before: Words, after: Words) -> Iterator[str]:
    """Every path once, in the order of a declaration: those of `after`, then those that go."""
    yield from after
    yield from (path for path in before if path not in after)


def _value(pair: Pair | None) -> object:
    return None if pair is None else pair[0]


def _change(path: str, before: Pair | None, after: Pair | None) -> Change:
    old, new = (None if pair is None else pair[1] for pair in (before, after))
    if before == after:
        return Change(path=path, before=old, after=new, note=FILES_CHANGED)
    if old is not None and old == new:  # two amounts that only differ in what rounding hides
        old, new = str(_value(before)), str(_value(after))
    return Change(path=path, before=old, after=new)


def _content(service: Service) -> str | None:
    return service.model.digest if isinstance(service.model, OnnxModel) else None


def _job_in_place(path: str) -> bool:
    return path in _IN_PLACE_CHECKPOINT or path.split(".", 1)[0] in IN_PLACE


def _service_in_place(path: str) -> bool:
    return path not in SERVICE_NEW and any(
        path == key or path.startswith(f"{key}.") for key in SERVICE_IN_PLACE
    )
