"""A body that is refused: what is wrong, where, and what was expected, in words of ours.

Theory: the decoder finds the fault in its one pass and says it in its own words with a path; this module
turns those into ours. The decoder's words hold types, limits and paths, and one thing the caller wrote: an
unknown key, which is cut. So a message never echoes data and is never longer than a few lines.
"""

import re
import struct
from collections.abc import Sequence
from difflib import get_close_matches

import msgspec

NAME_CHARS_SHOWN = 64
"""Of a name that the caller wrote, and of one that the model gave."""
HINT_NAMES_SHOWN = 16
"""How many inputs or outputs a hint lists."""

FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, struct.error)
"""What the decoder raises for bad bytes, and `struct` for a number that its type does not hold."""

_AT = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_BOUND = re.compile(r"Expected `(?:float|int)` ([<>])=? \S+")
_LENGTH = re.compile(r"Expected `array` of length ([<>])= ([0-9]+)")


class BadRequest(Exception):
    """A request that is refused as it stands. `status` is the HTTP status."""

    def __init__(self, message: str, *, hint: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What the decoder found: at `path` (``[3]``, ``.x[0][1]``, empty: the whole), in words.

    `unknown` and `missing` are names of keys; `bound` is ``<`` or ``>`` when a number broke that bound.
    """

    path: str
    words: str
    unknown: str | None = None
    missing: str | None = None
    bound: str | None = None


def read_fault(error: Exception) -> Fault | None:
    """The fault of well-formed JSON; None when it is not even that."""
    if not isinstance(error, msgspec.ValidationError):
        return None
    text = str(error)
    match = _AT.fullmatch(text)
    words, path = match.groups() if match else (text, "")
    unknown, missing, bound = _UNKNOWN.fullmatch(words), _MISSING.fullmatch(words), _BOUND.fullmatch(words)
    length = _LENGTH.fullmatch(words)
    plain = words.replace("`", "").replace("Expected", "expected").replace("Object", "the object is")
    return Fault(
        path=path,
        words=plain if length is None else _length_words(*length.groups()),
        unknown=unknown.group(1) if unknown else None,
        missing=missing.group(1) if missing else None,
        bound=bound.group(1) if bound else None,
    )


def _length_words(sign: str, count: str) -> str:
    values = "value" if count == "1" else "values"
    return f"expected at {'least' if sign == '>' else 'most'} {count} {values}"


def not_json(error: Exception) -> BadRequest:
    """The refusal of bytes that are not JSON, or not JSON that anyone should read."""
    if isinstance(error, RecursionError):
        return BadRequest("the JSON is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return BadRequest("a text in the JSON is not UTF-8")
    return BadRequest(
        f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}",
        hint="send UTF-8 without a byte order mark; NaN and Infinity are not JSON",
    )


def shown(name: str) -> str:
    """A name in quotes, cut, for a message."""
    return repr(name if len(name) <= NAME_CHARS_SHOWN else name[:NAME_CHARS_SHOWN] + "…")


def unknown_name(what: str, name: str, known: Sequence[str]) -> BadRequest:
    """The refusal of a name that does not exist, with the nearest that does."""
    near = get_close_matches(name[:NAME_CHARS_SHOWN], known, n=1)
    hint = f"did you mean {shown(near[0])}?" if near else f"known: {names_of(known)}"
    return BadRequest(f"there is no {what} {shown(name)}", hint=hint)


def names_of(known: Sequence[str]) -> str:
    """Names for a hint; only the first few of many."""
    text = ", ".join(shown(name) for name in known[:HINT_NAMES_SHOWN])
    return f"{text} and {len(known) - HINT_NAMES_SHOWN} more" if len(known) > HINT_NAMES_SHOWN else text
