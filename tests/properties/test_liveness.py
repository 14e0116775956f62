"""Things come to an end: without news a home comes to rest, and without faults its work gets done."""

from hypothesis import given
from tests.properties.checkers import nobody_waits_in_vain
from tests.properties.counting import View
from tests.properties.strategies import NODES, POLICY, Story, make_fleet, played, stories
from tests.scenarios.home import Home, published_by

from steersman.model.events import Event, NodeHealth, PolicySet, RankExited, RankStarted
from steersman.model.ids import NodeId
from steersman.model.reasons import Code
from steersman.model.snapshot import FINAL_PHASES, Phase, RunState

CYCLES_MAX = 120
"""Cycles in which nine workloads must be done once all faults are healed."""
_MAY_WAIT = {Code.REFUSED_TOO_LARGE, Code.WAITING_INPUT}


def _well_behaved(home: Home) -> list[Event]:
    """What healthy machines and programs report: all begin, obey a stop, and else finish."""
    events: list[Event] = []
    for _, run in home.snapshot.runs.sorted_items():
        spec = home.snapshot.workloads[run.workload].spec
        if run.state is RunState.RUNNING:
            events += [published_by(run, run.workload, item.name) for item in spec.body.artifacts]
        for at, rank in enumerate(run.ranks):
            if rank.end is not None:
                continue
            if run.state is RunState.STARTING and rank.started_ms is None:
                events.append(RankStarted(run=run.id, rank=at, pid=1, at_ms=home.now_ms))
            elif run.state is RunState.STOPPING:
                events.append(
                    RankExited(run=run.id, rank=at, at_ms=home.now_ms, exit_code=75, stop_delivered=True)
                )
            else:
                events.append(RankExited(run=run.id, rank=at, at_ms=home.now_ms, exit_code=0, completed=True))
    return events


def _heal(home: Home) -> None:
    alive = [NodeHealth(node=NodeId(name), health="alive") for name in NODES]
    home.cycle(PolicySet(policy=POLICY), make_fleet((4, 4, 4, 4)), *alive)


@given(story=stories())
def test_without_news_a_home_comes_to_rest(story: Story) -> None:
    """No livelock: with nothing new a bounded number of cycles decides everything there is to decide, and
    looking again when the plan asks for it comes to rest again."""
    home = played(story)
    home.settle()
    nobody_waits_in_vain(View(home.snapshot))
    for _ in range(40):
        wake = home.cycles[-1].plan.wake_at_ms
        if wake is None:
            return
        assert wake > home.now_ms, "a home at rest asks to be looked at again at once"
        home.cycle(after_ms=wake - home.now_ms)
        home.settle()
    raise AssertionError("a home without news never stops asking for another look")


@given(story=stories())
def test_without_faults_all_work_gets_done(story: Story) -> None:
    """All faults healed and all programs good, every workload comes to its end, but those that ask for more
    than the fleet has or for an input that nobody will make."""
    home = played(story)
    _heal(home)
    for _ in range(CYCLES_MAX):
        plan = home.cycle(*_well_behaved(home), after_ms=2_000)
        waiting = [
            state for _, state in home.snapshot.workloads.sorted_items() if state.phase not in FINAL_PHASES
        ]
        if not plan.decisions and not home.snapshot.runs:
            break
    for state in waiting:
        assert state.phase is Phase.DECLARED, state
        assert state.reason is not None
        assert state.reason.code in _MAY_WAIT, state
