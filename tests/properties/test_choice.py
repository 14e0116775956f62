"""Laws of homes in which jobs choose what they run on."""

from hypothesis import given, settings
from tests.properties.choice_laws import Story, check, play, stories, with_memo
from tests.properties.fingerprint import state_bytes

from steersman.model.snapshot import Snapshot
from steersman.state.fold import fold
from steersman.state.image import decode_image, encode_image


@given(story=stories())
@settings(max_examples=60)
def test_every_law_holds_in_every_story(story: Story) -> None:
    """Books, places, notices, moves, prices."""
    check(play(story))


@given(story=stories())
@settings(max_examples=15)
def test_a_memo_changes_no_decision(story: Story) -> None:
    """Kept, fresh or none at all: the same plan, to the byte."""
    for without, kept in with_memo(play(story)):
        assert without == kept


@given(story=stories())
@settings(max_examples=25)
def test_how_events_are_batched_changes_nothing_and_an_image_loses_nothing(story: Story) -> None:
    """One by one, all at once, and through a state image."""
    home = play(story)
    numbered = [(record.position, record.event) for record in home.log]
    assert state_bytes(fold(Snapshot(), numbered)) == state_bytes(home.snapshot)
    again = decode_image(encode_image(home.snapshot))
    assert again is not None
    assert state_bytes(again) == state_bytes(home.snapshot)
