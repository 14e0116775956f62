"""The difference of two declarations, what of it needs a new run, and the digest."""

import msgspec
import pytest
from msgspec.structs import replace

from steersman.model.workload import Workload
from steersman.spec.diff import Change, Diff, diff
from steersman.spec.digest import digest
from steersman.spec.parse import parse

BASE = (
    "name: a\nrun: x\nsetup: s\ntopology: node\n"
    "resources: {cpus: 2, memory: 1, accelerators: A100:1}\nenvs: {A: b}\nsecrets: [S]\n"
    "inputs: {I: w/m}\nartifacts: {o: p}\nmax_duration: 1h\n"
    "retry: {duration: 1h, exit_codes: {retry: [3], fatal: [4]}}\n"
    "checkpoint: {}\nlabels: {l: v}\nowner: me\npriority: 1\nworkdir: w\n"
    "spot_policy: auto\ndeadline: 5h\nwork: 4h\nmax_price: 3\n"
)


def read(text: str) -> Workload:
    return parse(text, "f").workloads[0]


CHANGES = [
    ("priority: 1", "priority: 2", ("priority", "1", "2"), False),
    ("owner: me", "owner: you", ("owner", "me", "you"), False),
    ("owner: me\n", "", ("owner", "me", None), False),
    ("labels: {l: v}", "labels: {l: w}", ("labels.l", "v", "w"), False),
    ("labels: {l: v}", "labels: {}", ("labels.l", "v", None), False),
    ("max_duration: 1h", "max_duration: off", ("max_duration", "1h", None), False),
    ("max_duration: 1h", "max_duration: 2h", ("max_duration", "1h", "2h"), False),
    ("max_duration: 1h", "max_duration: 1h\nstop_duration: 1m", ("stop_duration", "30s", "1m"), False),
    ("retry: {", "retry: {on_events: [], ", ("retry.on_events", "interruption", "none"), False),
    ("retry: {", "retry: {attempts: 2, ", ("retry.attempts", "5", "2"), False),
    ("duration: 1h, exit", "exit", ("retry.duration", "1h", None), False),
    ("retry: [3]", "retry: [3, 5]", ("retry.exit_codes.retry", "3", "3, 5"), False),
    ("fatal: [4]", "fatal: []", ("retry.exit_codes.fatal", "4", None), False),
    ("checkpoint: {}", "checkpoint: {keep: 1}", ("checkpoint.keep", "3", "1"), False),
    ("checkpoint: {}", "checkpoint: {min: 1s}", ("checkpoint.min", "10s", "1s"), False),
    ("checkpoint: {}", "checkpoint: {max: 2h}", ("checkpoint.max", "1h", "2h"), False),
    ("checkpoint: {}", "checkpoint: {interval: 1m}", ("checkpoint.interval", "auto", "1m"), False),
    ("spot_policy: auto", "spot_policy: spot", ("spot_policy", "auto", "spot"), False),
    ("deadline: 5h", "deadline: 6h", ("deadline", "5h", "6h"), False),
    ("work: 4h", "work: 90m", ("work", "4h", "1h30m"), False),
    ("max_price: 3", "max_price: 0.9731", ("max_price", "$3.00", "$0.9731"), False),
    ("run: x", "run: y", ("run", "x", "y"), True),
    ("setup: s\n", "", ("setup", "s", None), True),
    ("workdir: w", "workdir: v", ("workdir", "w", "v"), True),
    ("run: x", "run: x\nnum_nodes: 2", ("num_nodes", "1", "2"), True),
    ("topology: node", "topology: zone", ("topology", "node", "zone"), True),
    ("run: x", "run: x\nqueue: q", ("queue", "default", "q"), True),
    ("cpus: 2", "cpus: 2.5", ("resources.cpus", "2", "2.5"), True),
    ("memory: 1,", "memory: 1.5,", ("resources.memory", "1 GiB", "1.5 GiB"), True),
    ("A100:1", "A100:0.5", ("resources.accelerators.A100", "1", "0.5"), True),
    ("A100:1", "A100:1, mig_profile: 3g.20gb", ("resources.mig_profile", None, "3g.20gb"), True),
    ("A100:1", "H100:1", ("resources.accelerators.H100", None, "1"), True),
    ("envs: {A: b}", "envs: {A: c}", ("envs.A", "b", "c"), True),
    ("envs: {A: b}", "envs: {A: b, B: ''}", ("envs.B", None, ""), True),
    ("secrets: [S]", "secrets: {S: other}", ("secrets.S", "S", "other"), True),
    ("I: w/m", "I: w/n", ("inputs.I", "w/m", "w/n"), True),
    ("{o: p}", "{o: q}", ("artifacts.o", "p", "q"), True),
]


@pytest.mark.parametrize(("old", "new", "change", "restarts"), CHANGES)
def test_one_change(
    old: str, new: str, change: tuple[str, str | None, str | None], *, restarts: bool
) -> None:
    assert old in BASE
    found = diff(read(BASE), read(BASE.replace(old, new)))
    assert found.kind == "changed"
    assert found.restarts is restarts
    assert Change(path=change[0], before=change[1], after=change[2]) in found.changes
    assert len(found.changes) == 1 + (change[0] == "resources.accelerators.H100")


def test_switching_checkpoints_on_needs_a_new_run() -> None:
    off = read(BASE.replace("checkpoint: {}\n", ""))
    on = diff(off, read(BASE))
    assert on.restarts
    assert on.changes[0] == Change(path="checkpoint", before=None, after="on")
    assert diff(read(BASE), off).restarts


def test_one_change_in_place_beside_one_that_restarts() -> None:
    found = diff(read(BASE), read(BASE.replace("priority: 1", "priority: 2").replace("run: x", "run: y")))
    assert [change.path for change in found.changes] == ["priority", "run"]
    assert found.restarts


def test_amounts_that_look_alike_are_shown_exactly() -> None:
    old, new = (read(f"name: a\nrun: x\nresources: {{memory: {size}B}}\n") for size in (2**40 + 1, 2**40 + 2))
    (change,) = diff(old, new).changes
    assert change == Change(path="resources.memory", before=str(2**40 + 1), after=str(2**40 + 2))


def test_created_removed_unchanged() -> None:
    one = read(BASE)
    created = diff(None, one)
    assert (created.kind, created.restarts) == ("created", True)
    assert all(change.before is None and change.after is not None for change in created.changes)
    removed = diff(one, None)
    assert (removed.kind, removed.restarts) == ("removed", False)
    assert [change.path for change in removed.changes] == [change.path for change in created.changes]
    assert diff(one, read(BASE)) == Diff(kind="unchanged")
    assert diff(None, None) == Diff(kind="unchanged")


def test_only_one_name_can_be_compared() -> None:
    with pytest.raises(AssertionError, match="one name"):
        diff(read("name: a\nrun: x"), read("name: b\nrun: x"))


def test_a_field_added_to_the_model_cannot_be_forgotten_here() -> None:
    """Every field of a declaration appears among the paths of a full one."""
    paths = {change.path.split(".")[0] for change in diff(None, read(BASE)).changes}
    words = {
        "stop_grace_ms": "stop_duration",
        "max_duration_ms": "max_duration",
        "deadline_ms": "deadline",
        "work_ms": "work",
        "price_usd_micro_per_hour_max": "max_price",
    }
    workload = {field.name for field in msgspec.structs.fields(Workload)} - {"name", "body"}
    job = {words.get(field.name, field.name) for field in msgspec.structs.fields(type(read(BASE).body))}
    made = {
        "workdir_digest",
        "program",
        "replica",
    }  # no key sets them; the first is told as a change of workdir
    assert workload | job - made == paths


def test_other_files_in_a_workdir_are_a_change_of_it() -> None:
    def holding(digest: str | None) -> Workload:
        one = read(BASE)
        return replace(one, body=replace(one.body, workdir_digest=digest))

    found = diff(holding("sha256:1"), holding("sha256:2"))
    assert (found.kind, found.restarts) == ("changed", True)
    assert found.changes == (Change(path="workdir", before="w", after="w", note="its files changed"),)
    assert diff(holding("sha256:1"), holding("sha256:1")).kind == "unchanged"
    assert diff(holding(None), holding("sha256:2")).kind == "unchanged"


def test_equal_declarations_have_equal_digests() -> None:
    reordered = "run: x\nname: a\nenvs: {B: c, A: b}\n"
    assert digest(read("name: a\nrun: x\nenvs: {A: b, B: c}\n")) == digest(read(reordered))
    assert digest(read(BASE)).startswith("sha256:")
    assert len(digest(read(BASE))) == 7 + 64
    others = {digest(read(BASE.replace(old, new))) for old, new, _, _ in CHANGES}
    assert len(others | {digest(read(BASE))}) == len(CHANGES) + 1


def test_another_mode_of_sharing_needs_a_new_run() -> None:
    part = BASE.replace("A100:1", "A100:0.5")
    found = diff(read(part), read(part.replace("A100:0.5", "A100:0.5, sharing: mig")))
    assert [(change.path, change.after) for change in found.changes] == [("resources.sharing", "mig")]
    assert found.restarts
