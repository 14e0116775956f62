"""The environment is read whole, defaults outside Steersman, and a wrong variable is named."""

from pathlib import Path

import pytest

from steersman_trainer.errors import TrainerError
from steersman_trainer.settings import Settings, read_settings


def test_outside_steersman_everything_has_a_default() -> None:
    assert read_settings({}) == Settings(checkpoint_dir=Path("checkpoints").absolute())
    assert read_settings({}).interval_ms == 60_000
    assert read_settings({"STEERSMAN_RUN_ID": "", "STEERSMAN_CHECKPOINT_KEEP": ""}).keep == 3


def test_every_variable_is_read() -> None:
    environ = {
        "STEERSMAN_RUN_ID": "digits.4",
        "STEERSMAN_NODE_RANK": "1",
        "STEERSMAN_NUM_NODES": "2",
        "STEERSMAN_RUN_DIR": "/run/here",
        "STEERSMAN_CHECKPOINT_DIR": "/check/here",
        "STEERSMAN_CHECKPOINT_INTERVAL_MS": "0",
        "STEERSMAN_CHECKPOINT_KEEP": "5",
        "STEERSMAN_DOORBELL": "/bell",
    }
    assert read_settings(environ) == Settings(
        run_id="digits.4",
        rank=1,
        num_nodes=2,
        run_dir=Path("/run/here"),
        checkpoint_dir=Path("/check/here"),
        interval_ms=0,
        keep=5,
        doorbell="/bell",
    )


@pytest.mark.parametrize(
    "text", ["x", "-1", "1.5", "nan", " 1", "²", "٣", "9" * 5000, "1000000000001", "0x1"]
)
def test_a_wrong_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(TrainerError, match="STEERSMAN_CHECKPOINT_INTERVAL_MS") as caught:
        read_settings({"STEERSMAN_CHECKPOINT_INTERVAL_MS": text})
    assert "hint: " in str(caught.value)
    assert len(str(caught.value)) < 300


def test_keeping_none_is_refused() -> None:
    with pytest.raises(TrainerError, match="at least 1"):
        read_settings({"STEERSMAN_CHECKPOINT_KEEP": "0"})


def test_a_rank_beyond_the_nodes_is_refused() -> None:
    with pytest.raises(TrainerError, match="STEERSMAN_NODE_RANK is 2"):
        read_settings({"STEERSMAN_NODE_RANK": "2", "STEERSMAN_NUM_NODES": "2"})
