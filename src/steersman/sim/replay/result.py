"""What a replay of a public trace comes to, and what is told while it goes on."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

Progress = Callable[[float, str], None]
"""Called now and then with the share that is done (0 to 1) and a few words."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of each policy by name; their units are in docs/guides/replay.md.

    `dropped`: what the files hold and was not replayed, counted by reason. A metric is a number, or a table
    of numbers by part of the trace.
    """

    problem: str
    files: tuple[str, ...]
    dropped: Mapping[str, int]
    policies: Mapping[str, Mapping[str, Any]]


def silent(share: float, words: str) -> None:
    """Progress that nobody wants to see."""
    del share, words
