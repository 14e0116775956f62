"""Every law of queues bites: a bug is planted in accounts, rule or victims, and its law finds it."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.properties import queue_laws as laws
from tests.properties.queue_laws import Life, lived

from steersman.decide import quota
from steersman.decide.quota import Book
from steersman.state import draft

Patch = pytest.MonkeyPatch
LIVES_MAX = 60


def _grants_are_not_counted(patch: Patch) -> None:
    patch.setattr("steersman.decide.schedule.Book.grant", lambda *_: None)


def _everything_is_lent(patch: Patch) -> None:
    patch.setattr(quota, "_lent", lambda item: item.nominal)


def _the_borrowing_limit_is_forgotten(patch: Patch) -> None:
    real = Book._free
    patch.setattr(Book, "_free", lambda self, queue, item: real(self, queue, _unlimited(item)))


def _unlimited(item: Any) -> Any:
    return type(item)(resource=item.resource, nominal=item.nominal, lending_limit=item.lending_limit)


def _one_more_is_let_in(patch: Patch) -> None:
    real = Book._free
    patch.setattr(Book, "_free", lambda self, *given: real(self, *given) + 1_000)


def _a_gang_counts_as_one_rank(patch: Patch) -> None:
    patch.setattr("steersman.decide.turns.demand", lambda shape: quota.demand(shape._replace(num_nodes=1)))


def _ends_are_not_given_back(patch: Patch) -> None:
    real = draft._Held.add

    def add(self: draft._Held, queue: Any, amounts: Any, sign: int) -> None:
        if sign > 0:
            real(self, queue, amounts, sign)

    patch.setattr(draft._Held, "add", add)


def _anybody_of_the_cohort_yields(patch: Patch) -> None:
    patch.setattr(Book, "borrows", lambda *_: True)


BUGS: tuple[tuple[Callable[[Patch], None], Callable[[Any], None]], ...] = (
    (_grants_are_not_counted, laws.quotas_are_never_exceeded),
    (_everything_is_lent, laws.quotas_are_never_exceeded),
    (_the_borrowing_limit_is_forgotten, laws.quotas_are_never_exceeded),
    (_one_more_is_let_in, laws.quotas_are_never_exceeded),
    (_a_gang_counts_as_one_rank, laws.quotas_are_never_exceeded),
    (_ends_are_not_given_back, laws.usage_equals_its_rebuild),
    (_anybody_of_the_cohort_yields, laws.borrowers_alone_yield_beyond_their_queue),
)


def _search(law: Callable[[Any], None], lives: int) -> None:
    for seed in range(lives):
        law(lived(Life(seed, 25)))


@pytest.mark.parametrize("law", laws.LAWS)
def test_the_laws_hold_before_anything_is_planted(law: Callable[[Any], None]) -> None:
    _search(law, 10)


@pytest.mark.parametrize(("plant", "law"), BUGS, ids=lambda item: item.__name__.strip("_"))
def test_a_planted_bug_is_caught(
    plant: Callable[[Patch], None], law: Callable[[Any], None], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        _search(law, LIVES_MAX)
