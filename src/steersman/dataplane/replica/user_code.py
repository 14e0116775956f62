"""The border to code that is not ours: whatever it raises becomes one row's error, and the replica goes on.

The trace goes to stderr, which is the user's log. Over the wire goes the error's type, and its words only for
a ValueError, which is how a model says what is wrong with its input; other words may hold paths, addresses or
someone's data.

This is the one place of the replica that stops every Exception, because a model may raise any. SystemExit is
among them: a library that calls `sys.exit` must not end a service. What interrupts the process passes.
"""

from __future__ import annotations

import traceback
from types import TracebackType

from steersman.dataplane.replica.errors import one_line


class Guard:
    """``with Guard() as guard:`` around a call; then `error` is what it raised, `text` what may be told.

    A class, for a row passes it twice and a generator's context manager costs 3 µs each time.
    """

    __slots__ = ("error", "text")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.text: str | None = None

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, (Exception, SystemExit)):
            return False
        traceback.print_exception(kind, error, trace)
        self.error = error
        self.text = public_text(error)
        return True


def public_text(error: BaseException) -> str:
    """One line that may leave the machine."""
    name = type(error).__name__
    words = str(error) if isinstance(error, ValueError) else ""
    return one_line(f"{name}: {words}" if words else f"the model raised {name}")
