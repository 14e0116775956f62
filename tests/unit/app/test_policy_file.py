"""The policy of a home: nobody wrote one, somebody did, or what stands there is none."""

from pathlib import Path

import pytest

from steersman.app.policy_file import POLICY_FILE, policy_of
from steersman.app.settings import Settings
from steersman.app.wiring import wired
from steersman.model.errors import SpecError
from steersman.model.policy import Policy


def test_nobody_wrote_one(tmp_path: Path) -> None:
    assert policy_of(tmp_path) is None


def test_what_is_written_is_what_the_control_plane_obeys(tmp_path: Path) -> None:
    (tmp_path / POLICY_FILE).write_text("order: gittins\n")
    assert policy_of(tmp_path) == Policy(order="gittins")
    with wired(Settings(home=tmp_path), {}) as made:
        assert made.parts.policy == Policy(order="gittins")


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("order: shortest\n", "order", "'age'"),
        ("ordre: gittins\n", "'ordre' is not a key of a policy", "`order`"),
        ("order_period_ms: 0\n", "out of range", "from 1"),
        ("", "the file is empty", "write its keys"),
    ],
)
def test_what_is_no_policy_is_refused_before_the_home_is_taken(
    tmp_path: Path, text: str, words: str, hint: str
) -> None:
    (tmp_path / POLICY_FILE).write_text(text)
    with pytest.raises(SpecError) as caught, wired(Settings(home=tmp_path), {}):
        pass
    assert words in str(caught.value)
    assert hint in str(caught.value.hint)
    assert caught.value.source == str(tmp_path / POLICY_FILE)
    assert not (tmp_path / "journal.db").exists()


def test_a_folder_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / POLICY_FILE).mkdir()
    with pytest.raises(SpecError, match="cannot be read"):
        policy_of(tmp_path)
