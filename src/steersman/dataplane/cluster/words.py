"""What bridge, fence and hosts say to one another: names, and answers that carry a refusal as data.

An error that crosses processes as an exception would have to be rebuilt from its class on the other side; as
data it survives every version.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from steersman.model.errors import DriverError

NAMESPACE = "steersman"
CHUNK_BYTES = 96 * 1024
"""A piece of a file. The engine sends what has less than 100 KiB in the message itself; what has more goes by
way of the nodes' object stores, where a client that joined while the head was made anew may wait for ever."""
NAME = re.compile(r"steersman\.(?P<home>[0-9a-f]+)\.(?P<run>[a-z0-9][a-z0-9.-]*)\.(?P<rank>[0-9]+)")

Answer = dict[str, Any]

UNSURE = frozenset({"host-gone", "no-answer", "cluster-error"})
"""Codes of calls of which nobody knows what they have done."""


def fence_name(home_id: str) -> str:
    """The one object of a home that every effect passes through."""
    return f"steersman.{home_id}.fence"


def host_name(home_id: str, run: str, rank: int) -> str:
    """The one object of a rank."""
    return f"steersman.{home_id}.{run}.{rank}"


def group_name(home_id: str, run: str) -> str:
    """The reservation of a run's ranks."""
    return f"steersman.{home_id}.{run}"


def refusal(error: DriverError) -> Answer:
    """An error as data."""
    return {"refused": error.message, "hint": error.hint, "code": error.code}


def opened(answer: Any) -> Any:
    """The value of an answer. Raises the DriverError that it carries."""
    if not isinstance(answer, dict) or "refused" in answer:
        known = answer if isinstance(answer, dict) else {"refused": f"no answer, but {answer!r:.80}"}
        raise DriverError(known["refused"], hint=known.get("hint", ""), code=known.get("code"))
    return answer.get("value")


async def answered(work: Callable[[], Awaitable[Any]]) -> Answer:
    """Do something; what came of it, an expected failure included."""
    try:
        return {"value": await work()}
    except DriverError as error:
        return refusal(error)
    except OSError as error:
        return refusal(
            DriverError(f"the node's folder cannot be used: {error}", hint="free some space on the node")
        )
