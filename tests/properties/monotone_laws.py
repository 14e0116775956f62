"""To relax a constraint never turns what was possible into something impossible: one law for each decider.

Theory: each law takes a state that a home was in, asks the decider, loosens one thing and asks again. What is
loosened is what a user would loosen when told why something waits: fewer or smaller ranks, a larger fleet,
more tries, a longer time, more replicas. The rest of the state stays to the byte, so that the answer is the
decider's alone. Placement is asked of one workload at a time: among many, room that one of them no longer
needs may be used better by the others, and worse for a fourth (Graham's anomalies).
"""

from collections.abc import Callable, Iterator

from msgspec.structs import replace
from tests.properties.counting import asked, usable
from tests.scenarios.home import GIB, Cycle, node

from steersman.decide.admit import admit
from steersman.decide.autoscale import autoscale
from steersman.decide.recover import recover
from steersman.decide.rollout import rollout
from steersman.decide.schedule import schedule
from steersman.model.decisions import Admit, FailRollout, Promote, Requeue, Scale, Start
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.signals import ONGOING
from steersman.model.snapshot import NodeState, Phase, ServiceState, SignalValue, Snapshot, WorkloadState
from steersman.model.workload import Workload
from steersman.state.derive import rebuild

EXTRA = NodeId("zz-extra")


def _indexed(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, indexes=rebuild(snapshot))


def _with_workload(snapshot: Snapshot, state: WorkloadState) -> Snapshot:
    table = snapshot.workloads.edit()
    table[state.spec.name] = state
    return _indexed(replace(snapshot, workloads=table.freeze()))


def _with_service(snapshot: Snapshot, state: ServiceState) -> Snapshot:
    table = snapshot.services.edit()
    table[state.spec.name] = state
    return replace(snapshot, services=table.freeze())


def _larger(snapshot: Snapshot) -> Snapshot:
    """With one node more."""
    fresh = node(EXTRA, cores=4, gib=8, devices=("A100", "H100"))
    table = snapshot.nodes.edit()
    table[EXTRA] = NodeState(node=fresh, free_devices=tuple(sorted(device.id for device in fresh.devices)))
    return _indexed(replace(snapshot, nodes=table.freeze()))


def relaxed(spec: Workload) -> Iterator[Workload]:
    """The same workload, asking for a little less, in every one way."""
    asks = spec.resources
    if spec.body.num_nodes > 1:
        yield replace(spec, body=replace(spec.body, num_nodes=spec.body.num_nodes - 1))
    if spec.body.topology:
        yield replace(spec, body=replace(spec.body, topology=""))
    if asks.cpu_milli > 1_000:
        yield replace(spec, resources=replace(asks, cpu_milli=asks.cpu_milli - 1_000))
    if asks.memory_bytes > GIB:
        yield replace(spec, resources=replace(asks, memory_bytes=asks.memory_bytes - GIB))
    for at, (kind, count) in enumerate(asks.accelerators):
        fewer = ((kind, count - 1),) if count > 1 else ()
        others = (*asks.accelerators[:at], *fewer, *asks.accelerators[at + 1 :])
        yield replace(spec, resources=replace(asks, accelerators=others))


def _alone(snapshot: Snapshot, name: WorkloadName) -> Snapshot:
    """As the only one who waits for room, and nothing kept for anybody."""
    workloads, nodes = snapshot.workloads.edit(), snapshot.nodes.edit()
    for other, state in snapshot.workloads.sorted_items():
        if other == name:
            workloads[other] = replace(state, phase=Phase.QUEUED, reservations=())
        elif state.phase is Phase.QUEUED:
            del workloads[other]
    for key, at in snapshot.nodes.sorted_items():
        nodes[key] = replace(
            at, reserved_cpu_milli=0, reserved_memory_bytes=0, reserved_accelerators=(), reserved_shares=0
        )
    return _indexed(replace(snapshot, workloads=workloads.freeze(), nodes=nodes.freeze()))


def _starts(snapshot: Snapshot, name: str) -> bool:
    return any(isinstance(item, Start) and item.workload == name for item in schedule(snapshot).decisions)


def what_fits_fits_when_it_asks_for_less(cycle: Cycle) -> None:
    """schedule: whoever starts, starts with fewer or smaller ranks as well, and in a larger fleet."""
    admitted = {item.workload for item in admit(cycle.seen) if isinstance(item, Admit)}
    for name, state in cycle.seen.workloads.sorted_items():
        if state.phase is not Phase.QUEUED and name not in admitted:
            continue
        alone = _alone(cycle.seen, state.spec.name)
        if not _starts(alone, name):
            continue
        assert _starts(_larger(alone), name), f"{name} {asked(state)}: not in a larger fleet"
        for spec in relaxed(state.spec):
            less = replace(alone.workloads[name], spec=spec)
            assert _starts(_with_workload(alone, less), name), f"{name} {asked(state)}: not as {asked(less)}"


def what_is_admitted_is_admitted_when_it_asks_for_less(cycle: Cycle) -> None:
    """admit: whoever may queue may with fewer or smaller ranks, without an input, and in a larger fleet."""
    for item in admit(cycle.seen):
        if not isinstance(item, Admit):
            continue
        state = cycle.seen.workloads[item.workload]
        no_inputs = replace(state.spec, body=replace(state.spec.body, inputs=()))
        for spec in (*relaxed(state.spec), no_inputs):
            assert item in admit(_with_workload(cycle.seen, replace(state, spec=spec))), (state.spec, spec)
        if any(usable(at) for _, at in cycle.seen.nodes.sorted_items()):
            assert item in admit(_larger(cycle.seen)), state.spec


def what_is_tried_again_is_with_more_tries(cycle: Cycle) -> None:
    """recover: whoever gets another try gets it with more tries, more time, more reasons, no fatal codes."""
    for item in recover(cycle.seen):
        if not isinstance(item, Requeue):
            continue
        state = cycle.seen.workloads[item.workload]
        retry = state.spec.body.retry
        for more in (
            replace(retry, attempts_max=retry.attempts_max + 1),
            replace(retry, duration_ms_max=None),
            replace(retry, on_events=("error", "interruption")),
            replace(retry, exit_codes_fatal=()),
        ):
            body = replace(state.spec.body, retry=more)
            looser = _with_workload(cycle.seen, replace(state, spec=replace(state.spec, body=body)))
            again = [other for other in recover(looser) if other.workload == item.workload]
            assert [type(other) for other in again] == [Requeue], (retry, more)


def _targets(snapshot: Snapshot) -> dict[str, int]:
    after = {name: state.target for name, state in snapshot.services.sorted_items()}
    made = autoscale(snapshot).decisions
    return after | {item.workload: item.target for item in made if isinstance(item, Scale)}


def _louder(signal: SignalValue) -> SignalValue:
    heard = signal.name == ONGOING and signal.value is not None
    return replace(signal, value=(signal.value or 0) + 3_000) if heard else signal


def more_load_or_room_never_means_fewer_replicas(cycle: Cycle) -> None:
    """autoscale: no target is lower because more is asked of the service, or because it may have more."""
    before = _targets(cycle.seen)
    for name, state in cycle.seen.services.sorted_items():
        louder = tuple(_louder(value) for value in state.signals)
        scaling = replace(state.spec.scaling, max_replicas=state.spec.scaling.max_replicas + 1)
        roomier = replace(state, spec=replace(state.spec, scaling=scaling))
        for more in (replace(state, signals=louder), roomier):
            target = _targets(_with_service(cycle.seen, more))[name]
            assert target >= before[name], (name, target, before[name])


def what_takes_over_does_with_more_patience(cycle: Cycle) -> None:
    """rollout: who is promoted, or not given up, is so with more surge, time and tries as well."""
    verdicts = _verdicts(cycle.seen)
    for name, state in cycle.seen.services.sorted_items():
        bounds = state.spec.rollout
        for more in (
            replace(bounds, surge_max=bounds.surge_max + 1),
            replace(bounds, ready_timeout_ms=bounds.ready_timeout_ms * 2),
            replace(bounds, crashes_max=bounds.crashes_max + 1),
        ):
            looser = _verdicts(_with_service(cycle.seen, _bounded(state, more)))
            assert looser[name] >= verdicts[name], (name, bounds, more)


def _bounded(state: ServiceState, bounds: object) -> ServiceState:
    """The same service, its revision on the way included, under other bounds."""
    rolling = state.rolling
    if rolling is not None:
        rolling = replace(rolling, spec=replace(rolling.spec, rollout=bounds))
    return replace(state, spec=replace(state.spec, rollout=bounds), rolling=rolling)


def _verdicts(snapshot: Snapshot) -> dict[str, int]:
    """1 who is promoted, -1 who is given up, 0 the others."""
    found = dict.fromkeys((name for name, _ in snapshot.services.sorted_items()), 0)
    for item in rollout(snapshot).decisions:
        found[item.workload] = {Promote: 1, FailRollout: -1}.get(type(item), found.get(item.workload, 0))
    return found


LAWS: tuple[Callable[[Cycle], None], ...] = (
    what_fits_fits_when_it_asks_for_less,
    what_is_admitted_is_admitted_when_it_asks_for_less,
    what_is_tried_again_is_with_more_tries,
    more_load_or_room_never_means_fewer_replicas,
    what_takes_over_does_with_more_patience,
)
