"""Rows that are JSON texts: for models that are Python functions of a JSON value.

Theory: a body is scanned once, whole, to know that it is JSON which every reader takes (UTF-8, no lone
surrogates, numbers in range, not nested too deeply); then the text itself travels. One bad row would fail the
whole batch it shares, so the depth is held far below what readers take. The scan makes no objects, for a
body of brackets would become a hundred times its size and hold up every other request; only where digits
look like a number out of range is the text decoded. ``{"instances": […]}``, that key alone, is many rows; any
other value is one. What stands inside a row is the model's own matter.
"""

import re
from itertools import accumulate
from typing import Any, Final

import msgspec

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.codec.predict import BLANKS, INSTANCES, MANY, ONE, Reader, check_rows
from steersman.dataplane.gateway.codec.refusals import FAULTS, BadRequest, not_json

DEPTH_MAX: Final = 100
"""Lists and objects within one another. Readers in Python stop near 1,000, less their own callers."""

COUNTED_MAX: Final = 4_096
"""Brackets that are counted one by one; of more, whole levels are taken away first while that pays."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_HEAD = re.compile(rb'\{[ \t\r\n]*"[^"]*"[ \t\r\n]*:[ \t\r\n]*')
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_STEPS: Final = {ord("["): 1, ord("]"): -1}
_DIGITS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_MANY_DIGITS: Final = b"0" * 200


class _Whole(msgspec.Struct, frozen=True):
    instances: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_scan: Any = msgspec.json.Decoder(msgspec.Raw).decode
_decode_any: Any = msgspec.json.Decoder().decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def reader(rows_max: int) -> Reader:
    """The reader of JSON bodies. Raises BadRequest."""

    decode_many = msgspec.json.Decoder(list[msgspec.Raw]).decode

    def read(call: Call, body: bytes) -> None:
        text = body.strip(BLANKS)
        _check(text)
        instances = _instances(text)
        if instances is None:
            call.rows, call.payload, call.context = 1, [text], ONE
        else:
            rows = decode_many(instances)
            check_rows(len(rows), rows_max)
            call.rows, call.payload, call.context = len(rows), [bytes(row) for row in rows], MANY
        call.shapes = ()

    return read


def write(call: Call, answer: Answer) -> bytes:
    """The text of one row, or ``{"predictions": [text, …]}``."""
    if call.context is ONE:
        return bytes(answer.outputs[0])
    return b'{"predictions":[' + b",".join(answer.outputs) + b"]}"


def _check(text: bytes) -> None:
    """Refuse what some reader may not take."""
    if not text:
        raise BadRequest("the body is empty", hint="send one JSON value")
    try:
        _scan(text)
        str(text, "utf-8")
        if _suspicious(text):
            _decode_any(text)
    except FAULTS as error:
        if isinstance(error, msgspec.ValidationError):
            raise BadRequest("a number in the JSON is out of range") from None
        raise not_json(error) from None
    if text.count(b"[") + text.count(b"{") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        raise BadRequest(f"the JSON is nested more than {DEPTH_MAX} deep")


def _suspicious(text: bytes) -> bool:
    """Whether a number may be out of range: without 200 digits in a row and without an exponent of three
    digits, none reaches 1e300."""
    shapes = text.translate(_DIGITS)
    return b"e000" in shapes or b"e+000" in shapes or _MANY_DIGITS in shapes


def _depth(text: bytes) -> int:
    """How deeply well-formed JSON is nested."""
    brackets = _STRING.sub(b"", text).translate(_SQUARE, _NOT_BRACKETS)
    taken = 0
    while len(brackets) > COUNTED_MAX:
        fewer = brackets.replace(b"[]", b"")  # the innermost of each: one level
        shrunk = len(brackets) - len(fewer)
        brackets, taken = fewer, taken + 1
        if shrunk * 8 < len(brackets):
            break
    return taken + max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _instances(text: bytes) -> bytes | None:
    """The text of the list of many rows; None when the body is one row."""
    if not text.startswith(b"{"):
        return None
    found = _decode_whole(text).instances
    if found is msgspec.UNSET:
        return None
    value = bytes(found)
    rest = text[:-1].rstrip(BLANKS)
    if not _HEAD.fullmatch(rest[: len(rest) - len(value)]):  # more stands there than that key and its value
        if len(_decode_keys(text)) == 1:
            raise BadRequest(f"{INSTANCES!r} stands twice in one object", hint="give it once")
        return None
    return value if value.startswith(b"[") else None
