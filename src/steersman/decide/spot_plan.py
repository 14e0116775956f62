"""The least expected cost of a job with a deadline over spot and on-demand. A part of the decider `spot`.

Theory of operation. Given the hazards of the pools, the least expected cost to go is a finite dynamic
programme (D. P. Bertsekas, Dynamic Programming and Optimal Control, vol. 1), solved backward from the
deadline in steps. The state is: is a pool up, the bucket of age of that run, what is held (nothing, spot,
on-demand), and the free slack, which is the time to the deadline less the work left less one launch of
on-demand (less what is left of its launch when on-demand is held). What a step costs of free slack:

    keep spot or on-demand     nothing
    take on-demand from idle   nothing: its launch is set aside
    take spot from idle        one launch
    take spot from on-demand   two launches, there and back
    wait                       the step, and one launch when on-demand is given up for it

Free slack never may become negative: that is the point of no return, which `spot.feasible` tests to the
millisecond apart from the programme. Between the points of the slack axis, which lie closer together near
0, the cost is interpolated. A run that is lost finds another pool up with the learned chance
`hazard.cover`.

A `Table` follows from its `Basis` alone: what is journaled is the basis. Prices are micro-USD an hour, so
values are micro-USD; floating point, rounded by who reads them, for they are estimates.
"""

import itertools
from collections.abc import Sequence
from math import exp, inf, log
from typing import NamedTuple

import msgspec

from steersman.decide.hazard import HOUR_MS, cover, down_hazards, up_hazards
from steersman.model.pools import AGE_EDGES_MS, AGES, SpotHistory

STEP_MS = 1_200_000
"""20 min: below it a change of machine is not planned for. 10 to 30 min: 0.4 points of the ratio at most."""
STEPS_MAX = 288
"""96 h at 20 min; what is farther away is planned in longer steps."""
SLACK_POINTS = 14
"""Points of the slack axis, log-spaced; 7, 10, 16 and 24 give the same cost within 0.5 %."""
SLACK_FINE_HOURS = 0.1
"""Distance of the first two of them."""
UP_IDLE, UP_SPOT, UP_ON_DEMAND, DOWN_IDLE, DOWN_ON_DEMAND = range(5)
"""Whether a pool is up, and what is held."""
_EPSILON_HOURS = 1e-9
_STATES = 5

Row = list[float]
Layer = list[list[Row]]
"""Cost to go by state, bucket of age and point of slack."""
_Moves = list[tuple[int, float]]


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """All that a table follows from. Prices in micro-USD an hour; `spot` is that of the cheapest pool."""

    history: SpotHistory
    steps: int
    step_ms: int
    overhead_ms: int
    spot_usd_micro_per_hour: int
    on_demand_usd_micro_per_hour: int


class Odds(NamedTuple):
    """Chances per step by bucket of age: an up run ends, a down run ends, a run enters the next bucket.

    `cover`: a run that is lost finds another pool up.
    """

    lost: tuple[float, ...]
    back: tuple[float, ...]
    older: tuple[float, ...]
    cover: float


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Expected micro-USD to go by steps left, state, bucket of age and point of slack. Hazards per hour."""

    basis: Basis
    slack_hours: tuple[float, ...]
    up_hazards: tuple[float, ...]
    down_hazards: tuple[float, ...]
    odds: Odds
    values: tuple[Layer, ...]


class _Frame(NamedTuple):
    """What every step of the programme shares."""

    step_hours: float
    launch_hours: float
    spot: int
    on_demand: int
    slack_hours: tuple[float, ...]
    odds: Odds
    moves: dict[float, _Moves]


def solve(basis: Basis) -> Table:
    """Backward induction from the deadline: about 0.1 s for 288 steps."""
    history, step, launch = basis.history, basis.step_ms / HOUR_MS, basis.overhead_ms / HOUR_MS
    up, down = up_hazards(history), down_hazards(history)
    ratio = log(basis.steps * step / SLACK_FINE_HOURS + 1) / (SLACK_POINTS - 1)
    slack = tuple(SLACK_FINE_HOURS * (exp(ratio * point) - 1) for point in range(SLACK_POINTS))
    frame = _Frame(
        step_hours=step,
        launch_hours=launch,
        spot=basis.spot_usd_micro_per_hour,
        on_demand=basis.on_demand_usd_micro_per_hour,
        slack_hours=slack,
        odds=_odds(history, step, up, down),
        moves={spent: _moves(slack, spent) for spent in (launch, 2 * launch, step, step + launch)},
    )
    values: list[Layer] = [[[[0.0] * SLACK_POINTS for _ in range(AGES)] for _ in range(_STATES)]]
    for steps_left in range(1, basis.steps + 1):
        values.append(_backward(values[-1], steps_left * step, frame))
    return Table(
        basis=basis,
        slack_hours=slack,
        up_hazards=up,
        down_hazards=down,
        odds=frame.odds,
        values=tuple(values),
    )


def _odds(history: SpotHistory, step: float, up: tuple[float, ...], down: tuple[float, ...]) -> Odds:
    edges = [low / HOUR_MS for low in AGE_EDGES_MS]
    older = [min(1.0, step / (high - low)) for low, high in itertools.pairwise(edges)]
    return Odds(
        lost=tuple(1 - exp(-rate * step) for rate in up),
        back=tuple(1 - exp(-rate * step) for rate in down),
        older=(*older, 0.0),
        cover=cover(history),
    )


def _moves(slack: Sequence[float], spent: float) -> _Moves:
    """For every point of slack: where on the axis it lands when so much is spent; (-1, 0) when too much."""
    return [_locate(slack, hours - spent) for hours in slack]


def _locate(slack: Sequence[float], hours: float) -> tuple[int, float]:
    if hours < -_EPSILON_HOURS:
        return (-1, 0.0)
    at = 0
    while at < len(slack) - 2 and slack[at + 1] <= hours:
        at += 1
    return (at, min(1.0, max(0.0, (hours - slack[at]) / (slack[at + 1] - slack[at]))))


def _shift(row: Row, moves: _Moves) -> Row:
    return [inf if at < 0 else row[at] + part * (row[at + 1] - row[at]) for at, part in moves]


def value(table: Table, row: Sequence[float], slack_ms: int) -> float:
    """A row of the table at a free slack; below 0 as at 0, beyond the axis as at its end."""
    at, part = _locate(table.slack_hours, max(0, slack_ms) / HOUR_MS)
    return row[at] + part * (row[at + 1] - row[at])


def ahead(later: Layer, bucket: int, odds: Odds) -> list[Row]:
    """Expected cost after a step, by what is held then, for a run of this bucket; rows as the states."""
    older, next_bucket = odds.older[bucket], min(bucket + 1, AGES - 1)
    lost, back = odds.lost[bucket], odds.back[bucket]
    gone = later[DOWN_IDLE][0]
    if odds.cover:
        gone = _mix(odds.cover, later[UP_IDLE][0], 1 - odds.cover, gone, 0.0, gone)
    ends = (
        (UP_IDLE, lost, gone),
        (UP_SPOT, lost, gone),
        (UP_ON_DEMAND, lost, later[DOWN_ON_DEMAND][0]),
        (DOWN_IDLE, back, later[UP_IDLE][0]),
        (DOWN_ON_DEMAND, back, later[UP_ON_DEMAND][0]),
    )
    rows = []
    for state, ended, after in ends:
        same, aged = (1 - ended) * (1 - older), (1 - ended) * older
        rows.append(_mix(ended, after, same, later[state][bucket], aged, later[state][next_bucket]))
    return rows


def _mix(p: float, one: Row, q: float, two: Row, r: float, three: Row) -> Row:
    return [p * a + q * b + r * c for a, b, c in zip(one, two, three, strict=True)]


def _backward(later: Layer, left_hours: float, frame: _Frame) -> Layer:
    """One step of the programme: the least cost in every state with so many hours to the deadline."""
    step, launch, moves = frame.step_hours, frame.launch_hours, frame.moves
    wait, give_up = moves[step], moves[step + launch]
    work = [left_hours - hours - launch for hours in frame.slack_hours]
    work_held = [left_hours - hours for hours in frame.slack_hours]
    buy, buy_held = _paid(frame.on_demand, work, step), _paid(frame.on_demand, work_held, step)
    take, take_held = _paid(frame.spot, work, step), _paid(frame.spot, work_held, step)
    now: Layer = [[] for _ in range(_STATES)]
    for bucket in range(AGES):
        after = ahead(later, bucket, frame.odds)
        run = after[UP_SPOT]
        up = _least(buy, after[UP_ON_DEMAND], _shift(after[UP_IDLE], wait))
        up_held = _least(buy_held, after[UP_ON_DEMAND], _shift(after[UP_IDLE], give_up))
        down = _least(buy, after[DOWN_ON_DEMAND], _shift(after[DOWN_IDLE], wait))
        down_held = _least(buy_held, after[DOWN_ON_DEMAND], _shift(after[DOWN_IDLE], give_up))
        now[UP_IDLE].append(_unless_done(work, _least(take, _shift(run, moves[launch]), up)))
        now[UP_SPOT].append(_unless_done(work, _least(take, run, up)))
        changed = _least(take_held, _shift(run, moves[2 * launch]), up_held)
        now[UP_ON_DEMAND].append(_unless_done(work_held, changed))
        now[DOWN_IDLE].append(_unless_done(work, down))
        now[DOWN_ON_DEMAND].append(_unless_done(work_held, down_held))
    return now


def _paid(price: int, work: Row, step_hours: float) -> Row:
    """What a step on a machine costs, by the work that is left: no more than the work."""
    return [price * min(step_hours, max(0.0, hours)) for hours in work]


def _least(paid: Row, after: Row, other: Row) -> Row:
    """The cheaper of: pay for a step and go on, or the other."""
    return [
        on if (on := now + later) < rest else rest
        for now, later, rest in zip(paid, after, other, strict=True)
    ]


def _unless_done(work: Row, cost: Row) -> Row:
    return [at if hours > _EPSILON_HOURS else 0.0 for hours, at in zip(work, cost, strict=True)]
