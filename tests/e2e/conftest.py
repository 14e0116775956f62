"""Homes that the command line's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.steer_process import HELLO, end_work, steer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a control plane that was started by `steer up`."""
    home = tmp_path_factory.mktemp("steer") / "home"
    try:
        run = steer(home, "up", "-", stdin=HELLO.encode())
        assert run.returncode == 0, run.stderr
        yield home
    finally:
        end_work(home)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A home that does not exist yet; what runs in it at the end is ended."""
    home = tmp_path / "home"
    try:
        yield home
    finally:
        end_work(home)
