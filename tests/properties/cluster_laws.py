"""Lives of a fleet with clusters whose nodes come and go, and the laws of where work may be.

A life is drawn from a seed: nodes of two clusters and of this machine join and leave, clusters cannot be
asked and come back, jobs name an infrastructure or none, runs begin and end. The laws are of the whole life.
"""

from random import Random

from msgspec.structs import replace
from tests.scenarios.home import Home, fleet, job, node

from steersman.model.decisions import Start
from steersman.model.events import ClusterObserved, FleetDeclared, RankExited
from steersman.model.fleet import Cluster, Node, is_within
from steersman.model.snapshot import RunState, Snapshot
from steersman.model.workload import Workload

STEPS = 40
CLUSTERS = (Cluster(name="a", address="a:1"), Cluster(name="b", address="b:1"))
INFRAS = ("", "", "local", "ray", "ray/a", "ray/b")


def found(cluster: Cluster, number: int, cores: int = 2) -> Node:
    """A node as its cluster shows it."""
    made = node(f"{cluster.name}-{number}", cores=cores, devices=("T4",) if number % 2 else ())
    return replace(made, driver="ray", infra=cluster.infra)


def somewhere(name: str, infra: str, **asked: int) -> Workload:
    """A job that names an infrastructure."""
    spec = job(name, **asked)  # type: ignore[arg-type]  # numbers by name
    return replace(spec, resources=replace(spec.resources, infra=infra))


def with_clusters(*nodes: Node, clusters: tuple[Cluster, ...] = CLUSTERS) -> FleetDeclared:
    """A fleet of declared nodes and of clusters."""
    declared = fleet(*nodes)
    return FleetDeclared(fleet=replace(declared.fleet, clusters=clusters))


class Life:
    """One story. `before` is the snapshot before each step, by its number."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self.home = Home(with_clusters(node("here", cores=2)))
        self._jobs = 0
        for _ in range(STEPS):
            self._step()

    def _step(self) -> None:
        home, chance = self.home, self._chance
        match chance.randrange(8):
            case 0 | 1:
                cluster = chance.choice(CLUSTERS)
                count = chance.randrange(4)
                home.cycle(ClusterObserved(cluster=cluster.name, nodes=_some(cluster, count)))
            case 2:
                home.cycle(
                    ClusterObserved(cluster=chance.choice(CLUSTERS).name, problem="silent", hint="wait")
                )
            case 3:
                kept = tuple(cluster for cluster in CLUSTERS if chance.random() < 0.7)
                changed = tuple(replace(cluster, lease_ms=5_000 + chance.randrange(2)) for cluster in kept)
                home.cycle(with_clusters(node("here", cores=chance.randrange(1, 4)), clusters=changed))
            case 4:
                for (name,) in list(home.snapshot.indexes.live)[:2]:
                    run = home.snapshot.runs[name]
                    ends = [
                        RankExited(run=run.id, rank=index, at_ms=home.snapshot.now_ms, exit_code=0)
                        for index in range(len(run.ranks))
                    ]
                    home.cycle(*ends)
            case _:
                self._jobs += 1
                cores, ranks = chance.randrange(1, 3), chance.randrange(1, 3)
                home.up(somewhere(f"j{self._jobs}", chance.choice(INFRAS), cores=cores, ranks=ranks))
        home.settle()


def _some(cluster: Cluster, count: int) -> tuple[Node, ...]:
    return tuple(found(cluster, number) for number in range(count))


def work_stays_within_its_infra(life: Life) -> None:
    """No rank is ever placed where its job's `infra` does not allow."""
    for cycle in life.home.cycles:
        for item in cycle.plan.decisions:
            if isinstance(item, Start):
                asked = cycle.after.workloads[item.workload].spec.resources.infra
                for placement in item.placements:
                    where = cycle.seen.nodes[placement.node].node.infra
                    assert is_within(where, asked), (item.workload, asked, where)


def the_silent_get_no_work_and_lose_none(life: Life) -> None:
    """While a cluster cannot be asked, nothing begins there, and nothing that runs there ends by that."""
    for cycle in life.home.cycles:
        silent = {state.spec.name for state in cycle.seen.clusters if state.problem}
        for item in cycle.plan.decisions:
            if isinstance(item, Start):
                nodes = [cycle.seen.nodes[placement.node].node for placement in item.placements]
                assert not silent & {each.cluster for each in nodes}, item.workload
        told = {(event.run, event.rank) for event in cycle.batch if isinstance(event, RankExited)}
        for run, rank in _ended(cycle.seen) - _ended(cycle.before):
            assert (run, rank) in told, f"{run}/{rank} ended without proof"


def _ended(snapshot: Snapshot) -> set[tuple[str, int]]:
    return {
        (run.id, index)
        for _, run in snapshot.runs.sorted_items()
        for index, rank in enumerate(run.ranks)
        if rank.end is not None or run.state is RunState.ENDED
    }


def nodes_are_those_that_were_seen(life: Life) -> None:
    """The declared nodes of a cluster are those of its last answer; one that left the fleet has none."""
    shown: dict[str, set[str]] = {}
    specs = {state.spec.name: state.spec for state in life.home.cycles[0].before.clusters}
    for cycle in life.home.cycles:
        for event in cycle.batch:
            if isinstance(event, FleetDeclared):
                kept = {each.name: each for each in event.fleet.clusters}
                shown = {name: seen for name, seen in shown.items() if specs.get(name) == kept.get(name)}
                specs = kept
            elif isinstance(event, ClusterObserved) and event.cluster in specs and not event.problem:
                shown[event.cluster] = {each.id for each in event.nodes}
        there: dict[str, set[str]] = {}
        for key, state in cycle.seen.nodes.sorted_items():
            if state.declared and state.node.cluster:
                there.setdefault(state.node.cluster, set()).add(key)
        assert there == {name: seen for name, seen in shown.items() if seen}


LAWS = (work_stays_within_its_infra, the_silent_get_no_work_and_lose_none, nodes_are_those_that_were_seen)
