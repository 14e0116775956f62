"""A model file, looked at before any library reads it: is it whole, and does it stay within itself?

ONNX lets a tensor say that its values lie in another file, at any path, or at an address of this process's
own memory. Such a file is refused. The check walks the protobuf encoding itself, from the model to every
tensor that can be in it, and skips all else by its length; it allocates nothing that the file asks for. Only
what protobuf itself would accept is walked: a length beyond its message, a group, or an endless number means
that the file is cut short or is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from steersman.dataplane.replica.errors import LoadError

MODEL_BYTES_MAX = 2**31 - 1
"""The largest file: protobuf itself ends at 2 GiB."""
FIELDS_MAX = 20_000_000
DEPTH_MAX = 64
"""Graphs within graphs; each level is two messages deep or more."""
VARINT_BYTES_MAX = 10
HASH_BYTES = 2**20
_ORT_MARK = b"ORTM"
_HINT_WHOLE = "copy the file again, or export the model again"

MESSAGES: Mapping[str, Mapping[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}  # fmt: skip
"""The fields that lead to a tensor, by message. A test holds them equal to the onnx package's own."""
EXTERNAL_DATA = 13
DATA_LOCATION = 14
IR_VERSION = 1
GRAPH = 7

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


class ModelFile(NamedTuple):
    """An open, checked file. `path` reaches the same file whatever becomes of its name."""

    path: str
    digest: str
    size_bytes: int


@contextlib.contextmanager
def opened(path: str) -> Iterator[ModelFile]:
    """Open and check a model file. Raises LoadError for one that is not to be loaded."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise LoadError(f"the model file {path} cannot be opened: {why}", hint="check the path") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise LoadError(f"{path} is not a regular file", hint="name the ONNX file itself")
        if status.st_size > MODEL_BYTES_MAX:
            raise LoadError(
                f"{path} has {status.st_size} bytes; the most is {MODEL_BYTES_MAX}",
                hint="quantise the model, or serve it through a callable",
            )
        if status.st_size == 0:
            raise LoadError(f"{path} is empty", hint=_HINT_WHOLE)
        with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            check(data, path)
            digest = _digest(data)
        yield ModelFile(f"/proc/self/fd/{handle}", digest, status.st_size)
    finally:
        os.close(handle)


def _digest(data: memoryview) -> str:
    sha = hashlib.sha256()
    for start in range(0, len(data), HASH_BYTES):
        sha.update(data[start : start + HASH_BYTES])
    return f"sha256:{sha.hexdigest()}"


def check(data: memoryview, name: str) -> None:
    """Raises LoadError unless these bytes are a whole ONNX model with all its values inside."""
    if bytes(data[4:8]) == _ORT_MARK:
        raise LoadError(
            f"{name} is in ONNX Runtime's own format", hint="give the .onnx file it was made from"
        )
    try:
        _walk(data, name)
    except ValueError as error:
        raise LoadError(f"{name} is not a whole ONNX file: {error}", hint=_HINT_WHOLE) from error


def _walk(data: memoryview, name: str) -> None:
    """Every field on the way to a tensor, deepest last. Raises ValueError, LoadError."""
    pending = [("ModelProto", 0, len(data), 0)]
    model_fields: set[int] = set()
    fields = 0
    while pending:
        message, place, end, depth = pending.pop()
        if depth > DEPTH_MAX:
            raise ValueError(f"its graphs are nested deeper than {DEPTH_MAX} messages")
        ways = MESSAGES[message]
        while place < end:
            fields += 1
            number, start, stop, value = _field(data, place, end)
            if message == "TensorProto" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value)):
                raise LoadError(
                    f"{name} keeps values of its tensors outside of itself",
                    hint="save it as one file: onnx.save_model(model, path, save_as_external_data=False)",
                )
            if number in ways and value is None:
                pending.append((ways[number], start, stop, depth + 1))
            if message == "ModelProto":
                model_fields.add(number)
            place = stop
        if fields > FIELDS_MAX:
            raise ValueError(f"it has more than {FIELDS_MAX} fields")
    if not {IR_VERSION, GRAPH} <= model_fields:
        raise ValueError("it holds no graph")


def _field(data: memoryview, place: int, end: int) -> tuple[int, int, int, int | None]:
    """One field: its number, where its content begins and ends, and its value when it is a plain number."""
    key, place = _varint(data, place, end)
    number, form = key >> 3, key & 7
    if not 0 < number < 2**29:
        raise ValueError("it has a field without a number")
    if form == _VARINT:
        value, stop = _varint(data, place, end)
        return number, place, stop, value
    if form == _BYTES:
        length, place = _varint(data, place, end)
        stop = place + length
    elif form in _FIXED:
        stop = place + _FIXED[form]
    else:
        raise ValueError("it has a field of an unknown form")
    if stop > end:
        raise ValueError("it is cut short")
    return number, place, stop, None if form == _BYTES else 0


def _varint(data: memoryview, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(place, min(end, place + VARINT_BYTES_MAX)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise ValueError(
        "it is cut short" if end - place < VARINT_BYTES_MAX else "it has a number without an end"
    )
