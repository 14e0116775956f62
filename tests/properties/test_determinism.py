"""The same events give the same state, and the same state the same plan, however it came about."""

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from tests.properties.checkers import plans_follow_from_the_truth
from tests.properties.fingerprint import state_bytes
from tests.properties.strategies import Story, play, played, stories, told_by

from steersman.decide.cycle import decide
from steersman.model.codec import decode_event, encode_event
from steersman.model.decisions import Hold, SetCheckpointInterval
from steersman.model.events import Decided, Event, NodeHealth, Observed, RankUnknown
from steersman.model.snapshot import Snapshot
from steersman.state.fold import fold
from steersman.state.image import decode_image, encode_image

ROOT = Path(__file__).parent.parent.parent


@given(story=stories())
def test_events_from_their_bytes_give_the_same_state(story: Story) -> None:
    """fold of encoded and decoded events equals fold of the events: the journal loses nothing."""
    home = played(story)
    events = [(record.position, decode_event(*encode_event(record.event))) for record in home.log]
    again = fold(Snapshot(), events)
    assert again == home.snapshot
    assert state_bytes(again) == state_bytes(home.snapshot)


@given(story=stories())
def test_one_batch_equals_event_by_event(story: Story) -> None:
    """How events are cut into batches makes no difference."""
    home = played(story)
    state = Snapshot()
    for record in home.log:
        state = fold(state, [(record.position, record.event)])
    assert state == home.snapshot


@given(story=stories(20))
def test_a_plan_follows_from_the_truth_alone(story: Story) -> None:
    """The base tables put in in another order, with indexes made anew, give the same plan, to the byte."""
    plans_follow_from_the_truth(played(story))


@given(story=stories(20))
def test_an_image_holds_all_of_a_state(story: Story) -> None:
    """Written and read back, with services, gateway and keys, it is the same state with the same indexes."""
    home = played(story)
    again = decode_image(encode_image(home.snapshot))
    assert again == home.snapshot
    assert again is not None
    assert state_bytes(again) == state_bytes(home.snapshot)


@given(story=stories(20))
def test_old_states_are_never_changed(story: Story) -> None:
    """A snapshot stays what it was, whatever is folded on it or decided from it later."""
    home, batches = told_by(story)
    kept = []
    for batch in batches:
        play(home, batch)
        kept.append((home.snapshot, state_bytes(home.snapshot), home.cycles[-1].seen, home.cycles[-1].plan))
    for snapshot, picture, seen, plan in kept:
        assert state_bytes(snapshot) == picture
        assert decide(seen) == plan


@given(story=stories(20))
def test_unknown_destroys_nothing(story: Story) -> None:
    """That nobody can tell whether a rank lives ends nothing, frees nothing and changes no decision; and a
    node of which nothing is known keeps its leases, and none of its runs is judged."""
    home = played(story)
    base = home.snapshot
    live = [
        (run.id, at)
        for _, run in base.runs.sorted_items()
        for at, rank in enumerate(run.ranks)
        if not rank.end
    ]
    now = Observed(now_ms=base.now_ms)
    blind: list[Event] = [now, *(RankUnknown(run=run, rank=rank) for run, rank in live)]
    seeing = fold(base, [(base.position + 1, now)])
    unsure = fold(base, list(enumerate(blind, start=base.position + 1)))
    assert decide(unsure) == decide(seeing)
    assert unsure.nodes == seeing.nodes
    for key, _ in base.nodes.sorted_items():
        dark = fold(base, [(base.position + 1, NodeHealth(node=key, health="unknown"))])  # type: ignore[arg-type]  # a key of that table
        assert dark.runs == base.runs
        assert dark.nodes[key].leases == base.nodes[key].leases


@given(story=stories())
def test_a_plan_that_leaves_work_says_when_to_look_again(story: Story) -> None:
    """Without a wake-up time, and without news, the next cycle would change only words and intervals."""
    home = played(story)
    for cycle in home.cycles:
        wake = cycle.plan.wake_at_ms
        if wake is None or wake > cycle.after.now_ms:
            again = fold(cycle.after, [(cycle.after.position + 1, Observed(now_ms=cycle.after.now_ms))])
            left = decide(again).decisions
            assert all(isinstance(item, Hold | SetCheckpointInterval) for item in left), left


@given(story=stories())
def test_time_asked_for_is_enough(story: Story) -> None:
    """Nothing becomes due by time alone before the wake-up time that a plan at rest asks for."""
    home = played(story)
    home.settle()
    wake = home.cycles[-1].plan.wake_at_ms
    base = home.snapshot
    later = base.now_ms + 3_600_000 if wake is None else wake - 1
    if later > base.now_ms:
        assert not decide(fold(base, [(base.position + 1, Observed(now_ms=later))])).decisions


def test_a_recorded_plan_is_applied_as_it_was_taken() -> None:
    """fold never judges a decision again: it applies what the journal holds, though deciding would differ."""
    home = played(Story(3, 12))
    plans = [item.event for item in home.log if isinstance(item.event, Decided)]
    assert plans
    assert fold(Snapshot(), [(item.position, item.event) for item in home.log]) == home.snapshot


def test_the_hash_seed_changes_no_byte() -> None:
    """Two interpreters with different hash seeds write the same events and plans, to the byte."""
    digests = set()
    for seed in ("0", "1", "4242"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.properties.fingerprint"],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1, digests
