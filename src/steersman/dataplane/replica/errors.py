"""Everything a replica raises by itself.

Exception
├── LoadError     it cannot begin: what, why, hint; `lasting`: another try would meet the same
└── BatchError    one batch cannot be answered; `code` and text go to the gateway
"""

from __future__ import annotations

EXIT_CONFIG = 78
"""EX_CONFIG: the model as declared can never be served; another start would end the same way."""
EXIT_FAILED = 1

BAD_FRAME = "bad-frame"
WRONG_SHAPE = "wrong-shape"
MODEL_ERROR = "model-error"


class LoadError(Exception):
    """The model cannot be served. What and why in `message`; what to do in `hint`."""

    def __init__(self, message: str, *, hint: str, lasting: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.lasting = lasting

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return EXIT_CONFIG if self.lasting else EXIT_FAILED

    def __str__(self) -> str:
        return f"{one_line(self.message)}; hint: {one_line(self.hint)}"


class BatchError(Exception):
    """A batch without a result. `code` is one of the wire's words, the text one line for the caller."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


LINE_CHARS_MAX = 400
"""The longest text of an error, in characters."""


def one_line(text: str) -> str:
    """Any text as one printable line of bounded length."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LINE_CHARS_MAX else line[: LINE_CHARS_MAX - 1] + "…"
