"""``POST /predict``: plain JSON to rows of tensors, and the answer back.

Theory: a body is one row, ``{"a": row, "b": row}`` or the bare row of a model with a single input, or many,
``{"instances": [row, …]}``. At the top level the key ``instances`` always means many rows, so an input of
that name cannot be given there by name. Two readers accept the same bodies: a fast one, made for the
signature, for one row of fixed dims; and a general one, which alone says what is wrong. The fast one hands
over whatever it does not take at once.

The decoder keeps the last of two equal keys. The only texts in a body are its keys, so a name that stands
twice shows in the count of quotation marks, and is refused.

Numbers are written as doubles: each FP32 is exact in it, and writing the shortest text that gives the
same FP32 costs three times as much without numpy.
"""

import math
import re
import struct
from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Any, Final

import msgspec

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.codec.refusals import (
    FAULTS,
    BadRequest,
    Fault,
    names_of,
    not_json,
    read_fault,
    shown,
    unknown_name,
)
from steersman.dataplane.gateway.codec.tensors import CODES, Input, flatten, nest, pack_rows, unpacker
from steersman.dataplane.gateway.signature import Tensor

Reader = Callable[[Call, bytes], None]
Writer = Callable[[Call, Answer], bytes]

BLANKS: Final = b" \t\r\n"
INSTANCES: Final = "instances"
ONE, MANY = "one", "many"
"""`Call.context`: how the answer is written."""

_OF_MANY = re.compile(r"\A\.instances\[\d+\]")
_encode = msgspec.json.Encoder().encode


def reader(inputs: Sequence[Input], rows_max: int) -> Reader:
    """The reader of bodies for these inputs. It fills rows, payload, shapes, context; raises BadRequest."""
    general = _General(inputs, rows_max).read
    plain = all(one.fixed and not one.wide and one.name != INSTANCES for one in inputs)
    if not inputs or not plain:
        return general
    return _fast_single(inputs[0], general) if len(inputs) == 1 else _fast_named(inputs, general)


def row_type(inputs: Sequence[Input]) -> Any:
    """The decoder's type of ``{"<input>": row, …}``; the fields are f0, f1, … in the signature's order."""
    return msgspec.defstruct(
        "Row",
        [(f"f{at}", one.row) for at, one in enumerate(inputs)],
        forbid_unknown_fields=True,
        rename={f"f{at}": one.name for at, one in enumerate(inputs)},
    )


def _packer(one: Input) -> Callable[[Any], bytes]:
    """From one row of fixed dims to its bytes."""
    pack = struct.Struct(f"<{math.prod(_dims(one))}{one.code}").pack
    if not one.shape:
        return pack
    levels = len(one.shape) - 1
    if levels == 0:
        return lambda row: pack(*row)
    return lambda row: pack(*flatten(row, levels))


def _dims(one: Input) -> tuple[int, ...]:
    return tuple(dim or 0 for dim in one.shape)


def _fast_single(one: Input, general: Reader) -> Reader:
    bare = msgspec.json.Decoder(one.row).decode
    named = msgspec.json.Decoder(row_type([one])).decode
    pack, shapes, opener = _packer(one), (_dims(one),), b"[" if one.shape else b"\x00"

    def read(call: Call, body: bytes) -> None:
        try:
            if body.startswith(opener):
                data = pack(bare(body))
            elif body.count(b'"') == 2:
                data = pack(named(body).f0)
            else:
                return general(call, body)
        except FAULTS:
            return general(call, body)
        call.rows = 1
        call.payload = [data]
        call.shapes = shapes
        call.context = ONE
        return None

    return read


def _fast_named(inputs: Sequence[Input], general: Reader) -> Reader:
    decode = msgspec.json.Decoder(row_type(inputs)).decode
    shapes, quotes = tuple(map(_dims, inputs)), 2 * len(inputs)
    packers = [(f"f{at}", _packer(one)) for at, one in enumerate(inputs)]

    def read(call: Call, body: bytes) -> None:
        try:
            row = decode(body)
            payload = [pack(getattr(row, field)) for field, pack in packers]
        except FAULTS:
            return general(call, body)
        if body.count(b'"') != quotes:
            return general(call, body)
        call.rows = 1
        call.payload = payload
        call.shapes = shapes
        call.context = ONE
        return None

    return read


class _General:
    """Reads every form, and says what is wrong."""

    def __init__(self, inputs: Sequence[Input], rows_max: int) -> None:
        self.inputs = inputs
        self.names = [one.name for one in inputs]
        self.rows_max = rows_max
        self.row = row_type(inputs)
        each: Any = inputs[0].row | self.row if len(inputs) == 1 else self.row
        rows = GenericAlias(list, (each,))
        many: Any = msgspec.defstruct("Many", [(INSTANCES, rows)], forbid_unknown_fields=True)
        self.decode_row = msgspec.json.Decoder(self.row).decode
        self.decode_many: Any = msgspec.json.Decoder(many).decode
        self.decode_bare = msgspec.json.Decoder(inputs[0].row).decode if len(inputs) == 1 else None

    def read(self, call: Call, body: bytes) -> None:
        text = body.strip(BLANKS)
        if not text:
            raise BadRequest("the body is empty", hint=self.expected())
        if text.startswith(b"{"):
            rows, context = self.objects(text)
        else:
            rows, context = [self.bare(text)], ONE
        self.check_names(text, rows, context)
        payload, shapes = [], []
        for at, one in enumerate(self.inputs):
            where = f"input {shown(one.name)}"
            values = [getattr(row, f"f{at}") if isinstance(row, self.row) else row for row in rows]
            dims, data = pack_rows(one, values, where)
            shapes.append(dims)
            payload.append(data)
        call.rows = len(rows)
        call.payload = payload
        call.shapes = tuple(shapes)
        call.context = context

    def bare(self, text: bytes) -> Any:
        if self.decode_bare is None:
            raise BadRequest("the body is not an object of the inputs", hint=self.expected())
        try:
            return self.decode_bare(text)
        except FAULTS as error:
            raise self.refused(error) from None

    def objects(self, text: bytes) -> tuple[list[Any], str]:
        """The rows of a body that is an object, and its form."""
        if INSTANCES not in self.names:
            try:
                return [self.decode_row(text)], ONE
            except FAULTS as error:
                fault = read_fault(error)
                if fault is None or fault.unknown != INSTANCES or fault.path:
                    raise self.refused(error) from None
        try:
            rows = self.decode_many(text).instances
        except FAULTS as error:
            raise self.refused(error) from None
        check_rows(len(rows), self.rows_max)
        return rows, MANY

    def check_names(self, text: bytes, rows: list[Any], context: str) -> None:
        objects = sum(isinstance(row, self.row) for row in rows)
        if text.count(b'"') != 2 * (objects * len(self.inputs) + (context == MANY)):
            raise BadRequest("a name stands twice in one object", hint="give each input once")

    def refused(self, error: Exception) -> BadRequest:
        fault = read_fault(error)
        if fault is None:
            return not_json(error)
        if fault.unknown is not None:
            if fault.unknown in self.names or fault.unknown == INSTANCES:
                return BadRequest(
                    f"{shown(INSTANCES)} does not stand beside other names", hint=self.expected()
                )
            return unknown_name("input", fault.unknown, self.names)
        if fault.missing is not None:
            at = f" in {fault.path[1:]}" if fault.path else ""
            return BadRequest(f"input {shown(fault.missing)} is missing{at}", hint=self.expected())
        return describe(fault, self.about(fault))

    def about(self, fault: Fault) -> Input | None:
        """The input that a fault is in, as far as its path tells."""
        if len(self.inputs) == 1:
            return self.inputs[0]
        inner = _OF_MANY.sub("", fault.path).removeprefix(".")
        found = [one for one in self.inputs if inner == one.name or inner.startswith(f"{one.name}[")]
        return max(found, key=lambda one: len(one.name), default=None)

    def expected(self) -> str:
        if len(self.inputs) == 1:
            return self.inputs[0].takes
        return f"send an object with {names_of(self.names)}"


def describe(fault: Fault, one: Input | None) -> BadRequest:
    """The refusal of a value that is not what its input takes."""
    words = fault.words
    if fault.bound is not None:
        words = (
            "the value is " + ("above the largest" if fault.bound == "<" else "below the least") + " accepted"
        )
    path = fault.path.removeprefix(".")
    named = f"input {shown(one.name)}" if one else "the body"
    at = f" at {path}" if path and (one is None or path != one.name) else ""
    return BadRequest(f"{named}{at}: {words}", hint=one.takes if one else "")


def check_rows(rows: int, rows_max: int) -> None:
    """Refuse no rows at all, and more than one batch holds."""
    if rows == 0:
        raise BadRequest("there is no row in it", hint="send at least one instance")
    if rows > rows_max:
        raise BadRequest(
            f"{rows} rows are more than the {rows_max} one request may have", hint="send fewer instances"
        )


def writer(outputs: Sequence[Tensor]) -> Writer:
    """The writer of answers: ``{"<output>": value, …}``, or ``{"predictions": [that of each row]}``."""
    readers = [(one.name, unpacker(one.dtype)) for one in outputs]
    fast = [(one.name, unpack, *_as_declared(one)) for one, (_, unpack) in zip(outputs, readers, strict=True)]

    def write(call: Call, answer: Answer) -> bytes:
        if call.context is not ONE:
            return _write_many(readers, call.rows, answer)
        values: dict[str, Any] = {}
        for (name, unpack, declared, at_once), (dims, data) in zip(fast, answer.outputs, strict=True):
            if dims != declared:
                values[name] = nest(unpack(data), dims)
            elif dims:
                values[name] = at_once(data)
            else:
                (values[name],) = at_once(data)
        return _encode(values)

    return write


def _as_declared(one: Tensor) -> tuple[tuple[int, ...] | None, Any]:
    """The declared dims and the unpacker of one row, for an output of one fixed dim or none."""
    if len(one.shape) > 1 or None in one.shape:
        return None, None
    dims = tuple(dim or 0 for dim in one.shape)
    return dims, struct.Struct(f"<{math.prod(dims)}{CODES[one.dtype]}").unpack


def _write_many(readers: Sequence[tuple[str, Any]], rows: int, answer: Answer) -> bytes:
    columns = []
    for (_, unpack), (dims, data) in zip(readers, answer.outputs, strict=True):
        size = len(data) // rows
        columns.append([nest(unpack(data[at * size : (at + 1) * size]), dims) for at in range(rows)])
    names = [name for name, _ in readers]
    return _encode(
        {"predictions": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]}
    )
