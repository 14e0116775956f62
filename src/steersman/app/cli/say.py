"""Words to people and records to programs: everything the command line prints goes through here.

What comes from outside (names, reasons, log lines) may hold control characters, with which a text could
repaint the terminal or hide what it says. Nothing of that kind reaches it: they are shown as escapes. rich
gets text objects only, never markup.
"""

import re
import sys
from collections.abc import Sequence

import msgspec

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_LINE_ENDS = re.compile("\r\n?")
GAP = "  "


def clean(text: str) -> str:
    """The text with everything that could steer a terminal shown as an escape; lines and tabs stay."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", _LINE_ENDS.sub("\n", text))


def one_line(text: str) -> str:
    """The same, in one line."""
    return clean(text).replace("\n", "\\n").replace("\t", " ")


def say(text: str) -> None:
    """A line to stdout."""
    sys.stdout.write(clean(text) + "\n")
    sys.stdout.flush()


def say_raw(text: str) -> None:
    """Text to stdout without a line end of ours."""
    sys.stdout.write(clean(text))
    sys.stdout.flush()


def note(text: str) -> None:
    """A line to stderr: progress, warnings, what is beside the answer."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def say_error(message: str, hint: str, *, code: str, as_json: bool = False) -> None:
    """An error, to stderr: two lines, or a JSON object for programs."""
    if as_json:
        body = {"error": {"code": code, "message": message, "hint": hint}}
        sys.stderr.write(msgspec.json.encode(body).decode() + "\n")
        return
    note(f"error: {message}")
    if hint:
        note(f"hint: {hint}")


def say_json(value: object) -> None:
    """A record as one JSON document, indented, to stdout."""
    data = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(data.decode() + "\n")
    sys.stdout.flush()


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns for everything that is not a terminal; the last one is as wide as it likes."""
    lines = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
