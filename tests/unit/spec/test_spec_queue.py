"""`kind: queue`: what it says, and what is refused."""

import pytest

from steersman.model.errors import SpecError
from steersman.model.queue import GPU_HOUR, Budget, Queue, Quota
from steersman.spec.parse import parse

HEAD = "kind: queue\nname: research\n"


def read(text: str) -> Queue:
    (queue,) = parse(HEAD + text, "f.yaml").queues
    return queue


def test_everything_that_can_be_said() -> None:
    found = read(
        "cohort: lab\nweight: 2.5\nquotas:\n"
        "  - {resource: memory, nominal_quota: 64GB}\n"
        "  - {resource: cpus, nominal_quota: 1.5, borrowing_limit: 500m}\n"
        "  - {resource: A100, nominal_quota: 4, borrowing_limit: 0, lending_limit: 3}\n"
        "budget: {usd: 12.5, gpu_hours: 3, period: 30d}\n"
        "preemption: {reclaim_within_cohort: lower-priority, within_queue: never}\n"
    )
    assert (found.name, found.cohort, found.weight_milli) == ("research", "lab", 2_500)
    assert found.quotas == (
        Quota(resource="A100", nominal=4_000, borrowing_limit=0, lending_limit=3_000),
        Quota(resource="cpus", nominal=1_500, borrowing_limit=500),
        Quota(resource="memory", nominal=64 << 30),
    )
    assert found.budget == Budget(usd_micro=12_500_000, device_ms=3 * GPU_HOUR, period_ms=30 * 86_400_000)
    assert (found.reclaim, found.within) == ("lower-priority", "never")


def test_what_is_left_out_is_no_limit() -> None:
    found = read("")
    assert (found.quotas, found.budget, found.weight_milli) == ((), Budget(), 1_000)
    assert (found.cohort, found.reclaim, found.within) == ("", "any", "lower-priority")
    assert read("preemption: {}\nbudget: {}\n") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quotas: [{resource: cpus}]", "`nominal_quota` is missing"),
        ("quotas: [{nominal_quota: 1}]", "`resource` is missing"),
        ("quotas: [{resource: A100, nominal_quota: 1.5}]", "not a number of accelerators"),
        ("quotas: [{resource: A100, nominal_quota: 9999999999}]", "not a number of accelerators"),
        ("quotas: [{resource: cpus, nominal_quota: 4+}]", "not a range"),
        ("quotas: [{resource: memory, nominal_quota: x}]", "x"),
        (
            "quotas: [{resource: cpus, nominal_quota: 1}, {resource: cpus, nominal_quota: 2}]",
            "two quotas of cpus",
        ),
        ("quotas: [{resource: '', nominal_quota: 1}]", "resource"),
        ("weight: 0", "weight"),
        ("weight: 0.0001", "out of range"),
        ("budget: {usd: -1}", "dollars"),
        ("preemption: {within_queue: any}", "write one of"),
        ("quota: []", "did you mean `quotas`"),
        ("quotas: [{resource: cpu, nominal_quota: 1}]", "write cpus"),
        ("quotas: [{resource: Memry, nominal_quota: 1GB}]", "write memory"),
        ("quotas: [{resource: gpu, nominal_quota: 1}]", "write accelerators"),
        ("quotas: [{resource: cpus, nominal_quota: 1, borrowing_limit: 1}]", "in no cohort"),
        ("quotas: [{resource: cpus, nominal_quota: 1, lending_limit: 0}]", "leave `lending_limit` out"),
        ("cohort: c\nquotas: [{resource: A100, nominal_quota: 1, lending_limit: 2}]", "write at most 1"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(f"{text}\n")
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_other_kinds_are_no_slips() -> None:
    kinds = ("TPU", "A100", "Xeon-Phi", "GPU2000")
    quotas = ", ".join(f"{{resource: {kind}, nominal_quota: 1}}" for kind in kinds)
    assert sorted(kinds) == [each.resource for each in read(f"quotas: [{quotas}]\n").quotas]


def test_a_budget_that_bounds_nothing_is_said() -> None:
    (warning,) = parse(f"{HEAD}budget: {{period: 1d}}\n", "f.yaml").warnings
    assert "it bounds nothing: give `usd` or `gpu_hours`" in warning


def test_a_name_stands_once() -> None:
    with pytest.raises(SpecError, match="two queues called 'research'"):
        parse(f"{HEAD}---\n{HEAD}", "f.yaml")
