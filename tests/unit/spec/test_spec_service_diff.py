"""The difference of two services, and what of it needs a new revision."""

import msgspec
import pytest
from msgspec.structs import replace

from steersman.model.service import (
    CallableModel,
    Metric,
    OnnxModel,
    RequestLimits,
    RolloutPolicy,
    Scaling,
    Service,
    Window,
)
from steersman.spec.diff import Change, Diff, diff_services
from steersman.spec.digest import digest
from steersman.spec.parse import parse

BASE = (
    "name: a\nmodel: {onnx: m, inputs: {x: {min: 0, max: 1}}}\nsetup: s\nworkdir: w\n"
    "resources: {cpus: 2, memory: 1, accelerators: A100:1}\nenvs: {A: b}\nsecrets: [S]\n"
    "labels: {l: v}\nowner: me\npriority: 1\nslo: {latency_p99: 50ms}\n"
    "service: {replica_policy: {min_replicas: 1, max_replicas: 4, initial_replicas: 2,"
    " target_queued_requests: 1}, max_body: 4MB}\n"
)
POLICY = "service.replica_policy."
QUEUED = "target_queued_requests: 1"


def read(text: str) -> Service:
    return parse(text, "f").services[0]


CHANGES = [
    ("max: 1}", "max: 2}", ("model.inputs.x", "0.0 to 1.0", "0.0 to 2.0"), False),
    ("{min: 0, max: 1}", "{min: 0}", ("model.inputs.x", "0.0 to 1.0", "at least 0.0"), False),
    ("{min: 0, max: 1}", "{max: 1}", ("model.inputs.x", "0.0 to 1.0", "at most 1.0"), False),
    ("max_replicas: 4", "max_replicas: 5", ("service.replicas", "1 to 4", "1 to 5"), False),
    ("initial_replicas: 2,", "", (f"{POLICY}initial_replicas", "2", None), False),
    ("max_body: 4MB", "max_body: 8MB", ("service.max_body", "4 MiB", "8 MiB"), False),
    ("max_body: 4MB", "batch_wait: 1ms", ("service.batch_wait", "0s", "1ms"), False),
    ("max_body: 4MB", "request_timeout: 1s", ("service.request_timeout", "30s", "1s"), False),
    ("max_body: 4MB", "max_queued_requests: 9", ("service.max_queued_requests", "1024", "9"), False),
    ("max_body: 4MB", "max_batch_size: 8", ("service.max_batch_size", "64", "8"), True),
    ("max_body: 4MB", "rollout: {max_surge: 2}", ("service.rollout.max_surge", "1", "2"), False),
    ("max_body: 4MB", "rollout: {max_crashes: 2}", ("service.rollout.max_crashes", "3", "2"), False),
    ("max_body: 4MB", "rollout: {ready_timeout: 1m}", ("service.rollout.ready_timeout", "2m", "1m"), False),
    ("max_body: 4MB", "rollout: {ready_seconds_min: .5}",
     ("service.rollout.ready_seconds_min", "0s", "500ms"), False),
    ("50ms", "60ms", ("slo.latency_p99", "50ms", "60ms"), False),
    ("slo: {latency_p99: 50ms}\n", "", ("slo.latency_p99", "50ms", None), False),
    *(
        (QUEUED, f"{QUEUED}, {key}: {value}", (POLICY + key, *words), False)
        for key, value, words in (
            ("target_ongoing_requests", "2.5", ("2", "2.5")),
            ("upscale_delay_s", "1", ("3s", "1s")),
            ("downscale_delay_s", "1", ("1m", "1s")),
            ("downscale_to_zero_delay_s", "1", ("5m", "1s")),
            ("look_back_period_s", "1", ("5s", "1s")),
            ("upscaling_factor", "0.5", ("1", "0.5")),
            ("downscaling_factor", "0.5", ("1", "0.5")),
        )
    ),
    (QUEUED, "target_queued_requests: 2", (f"{POLICY}target_queued_requests", "1", "2"), False),
    ("priority: 1", "priority: 2", ("priority", "1", "2"), False),
    ("owner: me", "owner: you", ("owner", "me", "you"), False),
    ("labels: {l: v}", "labels: {l: w}", ("labels.l", "v", "w"), False),
    ("owner: me", "owner: me\nstop_duration: 1m", ("stop_duration", "30s", "1m"), False),
    ("onnx: m,", "onnx: n,", ("model.onnx", "m", "n"), True),
    ("onnx: m,", "artifact: j/a,", ("model.artifact", None, "j/a"), True),
    ("setup: s\n", "", ("setup", "s", None), True),
    ("workdir: w", "workdir: v", ("workdir", "w", "v"), True),
    ("envs: {A: b}", "envs: {A: c}", ("envs.A", "b", "c"), True),
    ("secrets: [S]", "secrets: {S: other}", ("secrets.S", "S", "other"), True),
    ("cpus: 2", "cpus: 3", ("resources.cpus", "2", "3"), True),
    ("memory: 1,", "memory: 2,", ("resources.memory", "1 GiB", "2 GiB"), True),
    ("A100:1", "A100:2", ("resources.accelerators.A100", "1", "2"), True),
    ("owner: me", "owner: me\nqueue: q", ("queue", "default", "q"), True),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "change", "restarts"), CHANGES)
def test_one_change(
    old: str, new: str, change: tuple[str, str | None, str | None], *, restarts: bool
) -> None:
    assert old in BASE
    before, after = read(BASE), read(BASE.replace(old, new))
    found = diff_services(before, after)
    assert (found.kind, found.restarts) == ("changed", restarts)
    assert Change(path=change[0], before=change[1], after=change[2]) in found.changes
    back = diff_services(after, before)
    assert {(each.path, each.before, each.after) for each in found.changes} == {
        (each.path, each.after, each.before) for each in back.changes
    }
    assert digest(before) != digest(after)


def test_a_callable_and_its_interpreter() -> None:
    before, after = (
        read(f"name: a\nmodel: {{callable: 'm:f', python: {python}}}\n") for python in ("p/x", "p/y")
    )
    assert diff_services(before, after).changes == (Change(path="model.python", before="p/x", after="p/y"),)
    onnx = diff_services(before, read("name: a\nmodel: {onnx: m}\n"))
    assert [each.path for each in onnx.changes] == ["model.onnx", "model.callable", "model.python"]
    assert onnx.restarts


def test_created_removed_unchanged() -> None:
    one = read(BASE)
    created, removed = diff_services(None, one), diff_services(one, None)
    assert (created.kind, created.restarts, removed.kind, removed.restarts) == (
        "created",
        True,
        "removed",
        False,
    )
    assert diff_services(one, read(BASE)) == Diff(kind="unchanged")
    with pytest.raises(AssertionError, match="one name"):
        diff_services(one, read(BASE.replace("name: a", "name: b")))


def test_other_content_under_the_same_path() -> None:
    def holding(model: str | None, workdir: str | None) -> Service:
        return replace(read(BASE), model=OnnxModel(path="m", digest=model), workdir_digest=workdir)

    found = diff_services(holding("sha256:1", "sha256:1"), holding("sha256:2", "sha256:1"))
    note = "its files changed"
    assert found == Diff(
        kind="changed", changes=(Change(path="model.onnx", before="m", after="m", note=note),), restarts=True
    )
    found = diff_services(holding("sha256:1", "sha256:1"), holding("sha256:1", "sha256:2"))
    assert found.changes == (Change(path="workdir", before="w", after="w", note=note),)
    assert diff_services(holding(None, None), holding("sha256:1", "sha256:1")).kind == "unchanged"


OTHER: dict[str, object] = {
    "forecast": False,
    "metrics": (Metric(name="backlog", target_milli=1, per="replica"),),
    "schedule": (Window(cron="0 8 * * *", duration_ms=60_000, min_replicas=2),),
}
"""Values of the fields that are no numbers."""


def test_a_field_added_to_the_model_cannot_be_forgotten_here() -> None:
    """Every field moves the difference when it moves; `workdir_digest` and `digest` are told apart above."""
    base = read(BASE)
    moved: list[Service] = []
    parts: dict[str, type[msgspec.Struct]] = {
        "scaling": Scaling,
        "limits": RequestLimits,
        "rollout": RolloutPolicy,
    }
    for part, kind in parts.items():
        for field in msgspec.structs.fields(kind):
            if field.name != "latency_p99_ms":  # the same number as slo_latency_p99_ms
                value = replace(getattr(base, part), **{field.name: OTHER.get(field.name, 7)})
                moved.append(replace(base, **{part: value}))
    for one in moved:
        assert diff_services(base, one).kind == "changed", one
    paths = {change.path.split(".")[0] for change in diff_services(None, base).changes}
    words = {"stop_grace_ms": "stop_duration", "slo_latency_p99_ms": "slo", "inputs": "model"}
    served = dict.fromkeys(parts, "service")
    fields = {field.name for field in msgspec.structs.fields(Service)} - {"name", "workdir_digest"}
    assert {{**words, **served}.get(name, name) for name in fields} == paths
    assert {field.name for field in msgspec.structs.fields(OnnxModel)} == {"path", "digest", "artifact"}
    assert {field.name for field in msgspec.structs.fields(CallableModel)} == {"target", "python"}
