"""Every law of `decide.capacity` bites: a bug is planted, and the law meant for it finds it."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from tests.properties import capacity_laws as laws
from tests.properties.capacity_laws import Play

from steersman.decide import backtest, capacity, forecast
from steersman.decide.backtest import Leader

Patch = pytest.MonkeyPatch
STORM = [(10, 10)] * 30 + [(70, 5)] * 20 + [(0, 10)] * 20 + [(30, 0)] * 10
RAMP = [(20, 10)] * 720 + [(20 + more, 10) for more in range(0, 60, 2)]
PLAYS = (
    Play(laws.service(), STORM),
    Play(laws.service(slo_s=30, cold_s=10, least=0), STORM),
    Play(laws.service(cold_s=180), RAMP),
)


def _forgets_the_most(patch: Patch) -> None:
    real = capacity.observe
    patch.setattr(capacity, "observe", lambda *seen: (lambda s: s._replace(target=s.target + 1))(real(*seen)))


def _throws_dice(patch: Patch) -> None:
    dice: Iterator[int] = count()
    patch.setattr(capacity, "lead", lambda *_: Leader(next(dice) % backtest.CANDIDATES, 1.0, 0.0))


def _shrinks_at_once(patch: Patch) -> None:
    real = capacity.observe
    patch.setattr(capacity, "observe", lambda *seen: (lambda s: s._replace(target=s.wanted[-1]))(real(*seen)))


def _ignores_the_queue(patch: Patch) -> None:
    patch.setattr(capacity, "is_long", lambda *_: False)
    patch.setattr(capacity, "_unknown", lambda *_: 0)


def _drains_the_wrong_way(patch: Patch) -> None:
    patch.setattr(capacity, "is_long", lambda backlog, *_: 0 < backlog < 40_000)
    patch.setattr(capacity, "drained", lambda *_: 20_000)


def _counts_violations_twice(patch: Patch) -> None:
    real = backtest._violations
    patch.setattr(backtest, "_violations", lambda *seen: tuple(2 * one + 1 for one in real(*seen)))


def _remembers_everything(patch: Patch) -> None:
    patch.setattr(forecast, "BLOCKS", 10_000)


def _takes_every_load_for_known(patch: Patch) -> None:
    patch.setattr(capacity, "is_unseen", lambda *_: False)


def _hold(law: Callable[[Play], None]) -> None:
    for play in PLAYS:
        law(play)


CASES: tuple[tuple[Callable[[Patch], None], Callable[[Play], None]], ...] = (
    (_forgets_the_most, laws.in_bounds),
    (_throws_dice, laws.same_again),
    (_shrinks_at_once, laws.shrinking_lasts),
    (_shrinks_at_once, laws.warm_never_shrinks),
    (_ignores_the_queue, laws.queues_are_drained),
    (_drains_the_wrong_way, laws.more_waits_no_fewer),
    (_takes_every_load_for_known, laws.records_are_prepared_for),
    (_counts_violations_twice, laws.figures_are_sound),
    (_remembers_everything, laws.stays_small),
)


@pytest.mark.parametrize(("plant", "law"), CASES, ids=lambda case: case.__name__.strip("_"))
def test_a_planted_bug_is_found(
    monkeypatch: Patch, plant: Callable[[Patch], None], law: Callable[[Play], None]
) -> None:
    _hold(law)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        _hold(law)


def test_every_law_has_its_bug() -> None:
    assert {law for _, law in CASES} == set(laws.LAWS)
