"""Where in the user's text a value stands, so that every error and warning can say it.

A place carries the source's name, the path of keys, and the list into which warnings of one parse are
collected. Errors are raised at once; warnings never stop anything. Text of the user is shown shortened and
with its control characters escaped; text of a secrets section is never shown.
"""

import msgspec

from steersman.model.errors import NotYetError, SpecError

SHOWN_CHARS_MAX = 60
"""How much of a user's text an error repeats, in characters."""


def show(text: str) -> str:
    """A user's text for a message: quoted, escaped, shortened."""
    cut = text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"
    return repr(cut)


def step(key: str) -> str:
    """One key of a path: as written where it is short and printable."""
    return key if len(key) <= SHOWN_CHARS_MAX and key.isprintable() else show(key)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where something was declared. `lines` are those of its keys, as (path, line), to the second level."""

    source: str
    line: int
    lines: tuple[tuple[str, int], ...] = ()

    def line_of(self, path: str) -> int:
        """The line of a key, else of the nearest one above it that was written, else of the declaration."""
        known = dict(self.lines)
        while path and path not in known:
            path = path.rpartition(".")[0]
        return known.get(path, self.line)

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A position in a declaration. `warnings` is shared by all places of one parse."""

    source: str
    path: str = ""
    warnings: list[str]

    def at(self, key: str) -> "Place":
        """The place of a key below this one."""
        path = f"{self.path}.{step(key)}" if self.path else step(key)
        return Place(source=self.source, path=path, warnings=self.warnings)

    def error(self, line: int, message: str, hint: str) -> SpecError:
        return SpecError(message, hint=hint, source=self.source, path=self.path, line=line)

    def not_yet(self, line: int, message: str, hint: str) -> NotYetError:
        return NotYetError(message, hint=hint, source=self.source, path=self.path, line=line)

    def located(self, line: int, error: SpecError) -> SpecError:
        """An error raised without a place, with this one."""
        return self.error(line, error.message, error.hint)

    def warn(self, line: int, message: str) -> None:
        self.warnings.append(f"{self.source}:{line}: {self.path}: {message}")
