"""What is declared and will have no effect is said, and is no error."""

from pathlib import Path

import pytest
from tests.unit.app.worlds import FLEET, MACHINE, folded, submission

from steersman.app.declare import Here, declare
from steersman.model.snapshot import Snapshot

QUEUE = "kind: queue\nname: research\nquotas: [{resource: cpus, nominal_quota: 4}]\n"
NODES = "kind: fleet\nname: f\nnodes: [{name: z, cpus: 2, memory: 1GB, accelerators: A100-80GB:1}]\n"
SERVICE = (
    "kind: service\nname: s\nworkdir: WORK\nmodel: {callable: 'm:f'}\n"
    "service: {replica_policy: {min_replicas: 1, max_replicas: 2, "
    "metrics: [{name: queued_jobs, queue: QUEUE, target: 2}]}}\n"
)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    home = tmp_path / "home"
    home.mkdir()
    return Here(home=home, user=tmp_path, fleet=FLEET, secrets=(), machine=MACHINE)


def quota(resource: str) -> str:
    return QUEUE.replace("resource: cpus", f"resource: {resource}")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["name: a\nqueue: label\nrun: x\n"], []),
        ([QUEUE, "name: a\nqueue: research\nrun: x\n"], []),
        ([QUEUE, "name: a\nrun: x\n"], []),
        ([QUEUE, "name: a\nqueue: reserach\nrun: x\n"], ["no budget holds for it; did you mean 'research'?"]),
        ([QUEUE, SERVICE.replace("QUEUE", "research")], []),
        ([QUEUE, SERVICE.replace("QUEUE", "nosuch")], ["'s' counts what waits in the queue 'nosuch'"]),
        ([NODES, quota("A100-80GB")], []),
        ([NODES, quota("accelerators")], []),
        ([NODES, quota("A100")], ["of which the fleet has none; did you mean 'A100-80GB'?"]),
        ([quota("H200")], ["'research' has a quota of 'H200', of which the fleet has none"]),
    ],
)
def test_what_nothing_has_is_said(here: Here, texts: list[str], words: list[str]) -> None:
    (here.user / "work").mkdir()
    text = "---\n".join(texts).replace("WORK", str(here.user / "work"))
    found = declare(submission(text), Snapshot(), here)
    doubted = [one for one in found.warnings if "queue" in one]
    assert len(doubted) == len(words)
    assert all(word in one for word, one in zip(words, doubted, strict=True))


def test_a_queue_that_was_declared_before_is_known(here: Here) -> None:
    before = folded(Snapshot(), declare(submission(QUEUE), Snapshot(), here).events)
    found = declare(submission("name: a\nqueue: resarch\nrun: x\n"), before, here)
    (warning,) = found.warnings
    assert warning.startswith("'a' is in the queue 'resarch', which is not declared")
    assert warning.endswith("did you mean 'research'?")
