"""Every error a caller can meet, in one tree.

    SteersmanError            what, why, hint; `code` is stable
    ├── SpecError             the declaration is wrong: path, line, nearest key
    │   └── NotYetError       understood, and not built yet
    ├── JournalError
    │   ├── JournalCorrupt    bytes differ from what was acknowledged; never served from
    │   ├── JournalNewer      written by a newer Steersman
    │   ├── JournalLocked     another control plane owns the home
    │   └── JournalWriteError disk full, read-only: nothing was acknowledged
    ├── DriverError           an effect could not be brought about
    │   └── NotTakenError     the place could not take it, whatever it was: it may later, or another
    ├── ConflictError         it does not fit what is there: unknown name, duplicate, stale
    ├── TraceError            a recorded trace cannot be read
    ├── AccessError           no token, or the wrong one
    └── HomeError             the home folder cannot be used

A programmer's error is an assertion and stops the cycle; it is not in this tree.
"""


class SteersmanError(Exception):
    """What happened and why in `message`; what to do in `hint`; `code` is stable across releases."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class SpecError(SteersmanError):
    """A declaration that cannot be accepted. `path` is like ``resources.cpus``; `line` counts from 1."""

    code = "spec-invalid"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        source: str = "",
        path: str = "",
        line: int | None = None,
    ) -> None:
        where = ":".join(str(part) for part in (source, line) if part)
        parts = [part for part in (where, path) if part]
        super().__init__(": ".join([*parts, message]), hint=hint, code=code)
        self.source, self.path, self.line = source, path, line


class NotYetError(SpecError):
    """A declaration Steersman understands and cannot honour yet."""

    code = "not-yet"


class JournalError(SteersmanError):
    code = "journal"


class JournalCorrupt(JournalError):
    code = "journal-corrupt"


class JournalNewer(JournalError):
    code = "journal-newer"


class JournalLocked(JournalError):
    code = "home-locked"


class JournalWriteError(JournalError):
    code = "journal-write"


class DriverError(SteersmanError):
    code = "driver"


class NotTakenError(DriverError):
    code = "not-taken"


class ConflictError(SteersmanError):
    code = "conflict"


class TraceError(SteersmanError):
    code = "trace-invalid"


class AccessError(SteersmanError):
    code = "access"


class HomeError(SteersmanError):
    code = "home"
