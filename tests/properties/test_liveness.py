"""Things come to an end: without news a home comes to rest, and without faults its work gets done."""

from collections.abc import Iterator

from hypothesis import given
from tests.properties.checkers import nobody_waits_in_vain
from tests.properties.counting import View
from tests.properties.service_laws import answers
from tests.properties.strategies import NODES, POLICY, Story, make_fleet, played, stories
from tests.scenarios.home import Home, published_by

from steersman.decide.rollout import model_of
from steersman.model.events import Event, NodeHealth, PolicySet, RankExited, RankReady, RankStarted, Signal
from steersman.model.ids import NodeId
from steersman.model.reasons import Code
from steersman.model.snapshot import FINAL_PHASES, Phase, Run, RunState

CYCLES_MAX = 120
"""Cycles in which nine workloads must be done once all faults are healed."""
LOOKS_MAX = 160
"""Looks until a home is at rest; a forecast asks for some fifty, ever rarer, in hours of steady load."""
_MAY_WAIT = {Code.REFUSED_TOO_LARGE, Code.WAITING_INPUT}


def _well_behaved(home: Home) -> list[Event]:
    """What healthy machines and programs report: all begin, obey a stop, and else finish or get ready."""
    return [event for _, run in home.snapshot.runs.sorted_items() for event in _goes_well(home, run)]


def _goes_well(home: Home, run: Run) -> Iterator[Event]:
    spec = home.snapshot.workloads[run.workload].spec
    ends = spec.body.program == "command"
    if run.state is RunState.RUNNING and ends:
        yield from (published_by(run, run.workload, item.name) for item in spec.body.artifacts)
    for at, rank in enumerate(run.ranks):
        if rank.end is not None:
            continue
        if run.state is RunState.STARTING and rank.started_ms is None:
            yield RankStarted(run=run.id, rank=at, pid=1, at_ms=home.now_ms)
        elif run.state is RunState.STOPPING:
            yield RankExited(run=run.id, rank=at, at_ms=home.now_ms, exit_code=75, stop_delivered=True)
        elif ends:
            yield RankExited(run=run.id, rank=at, at_ms=home.now_ms, exit_code=0, completed=True)
        elif run.ready_ms is None:
            yield RankReady(run=run.id, rank=at, at_ms=home.now_ms, load_ms=1)


def _steady(home: Home) -> tuple[Signal, ...]:
    """Two requests in flight for every service and none that waits; no rate, which a forecast would look at
    again and again for hours."""
    values = {"ongoing_milli": 2_000, "queued_milli": 0, "latency_p99_us": 10_000, "arrivals_milli": None}
    return tuple(
        Signal(name=name, subject=subject, value=value)
        for subject, _ in home.snapshot.services.sorted_items()
        for name, value in values.items()
    )


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
    for _ in range(LOOKS_MAX):
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
    than the fleet has or for an input that nobody will make; and every service whose model is there serves
    with as many replicas as its load asks for, all of one revision."""
    home = played(story)
    _heal(home)
    home.cycle(signals=_steady(home))
    for _ in range(CYCLES_MAX):
        news = _well_behaved(home)
        plan = home.cycle(*news, after_ms=2_000)
        if not plan.decisions and not news and plan.wake_at_ms is None:
            break
    for _, state in home.snapshot.workloads.sorted_items():
        if state.phase in FINAL_PHASES or state.spec.body.program != "command":
            continue
        assert state.phase is Phase.DECLARED, state
        assert state.reason is not None
        assert state.reason.code in _MAY_WAIT, state
    _services_serve(home)


def _services_serve(home: Home) -> None:
    view = View(home.snapshot)
    assert not any(state.removing for state in view.services.values())
    for name, state in view.services.items():
        if state.stop_requested:
            assert state.replicas == (), name
            continue
        _, missing = model_of(home.snapshot, state.spec)
        assert missing is None or state.serving is None or state.rolling is None, name
        if missing is not None and state.serving is None and state.rolling is None:
            continue
        assert state.serving is not None, name
        assert state.rolling is None, name
        assert {ref.revision for ref in state.replicas} <= {state.serving.number}, name
        assert len(state.replicas) == state.target, name
        assert all(answers(view, ref) for ref in state.replicas), name


@given(story=stories(20))
def test_a_settled_home_stays_as_it_is(story: Story) -> None:
    """Looked at again and again, told the same signals each time, it decides nothing: no flapping."""
    home = played(story)
    _heal(home)
    for _ in range(CYCLES_MAX):
        news = _well_behaved(home)
        plan = home.cycle(*news, after_ms=2_000, signals=_steady(home))
        if not plan.decisions and not news and plan.wake_at_ms is None:
            break
    for _ in range(20):
        assert home.cycle(after_ms=30_000, signals=_steady(home)).decisions == ()
    assert home.cycles[-1].plan.wake_at_ms is None
