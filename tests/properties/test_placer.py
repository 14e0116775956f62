"""What is kept between cycles changes no plan."""

from hypothesis import given
from tests.properties.strategies import Story, played, stories

from steersman.decide.cycle import Memo, decide
from steersman.model.snapshot import Snapshot
from steersman.model.table import Table
from steersman.state.image import decode_image, encode_image


@given(story=stories())
def test_the_memo_changes_no_plan(story: Story) -> None:
    """One memo over a whole life, jumps in time included, and none at all: the same plans."""
    memo = Memo()
    cycles = played(story).cycles
    for cycle in (*cycles, *cycles[::-3]):
        assert decide(cycle.seen, memo) == decide(cycle.seen)


@given(story=stories(longest=24))
def test_an_image_keeps_what_was_learned(story: Story) -> None:
    home = played(story)
    image = decode_image(encode_image(home.snapshot))
    assert isinstance(image, Snapshot)
    assert image.packing == home.snapshot.packing
    assert image.indexes == home.snapshot.indexes


def test_only_the_buckets_that_differ_are_looked_at() -> None:
    one = Table.of((f"k{number}", number) for number in range(50))
    editor = one.edit()
    editor["k7"] = 8
    editor["new"] = 1
    del editor["k9"]
    two = editor.freeze()
    assert {"k7", "k9", "new"} <= set(two.keys_unlike(one)) <= {*(f"k{n}" for n in range(50)), "new"}
    assert list(one.keys_unlike(one)) == []
