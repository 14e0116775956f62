"""An ONNX model behind onnxruntime: bytes in, bytes out, without a copy of ours on the way.

Loading is suspicious: the file is checked first (`onnx_file`), then the signature (only plain tensors whose
first dimension is the batch), then the model is run on zeros, one row and a full batch, and what comes out
must be what was declared. So a model that can only answer wrongly never gets ready.

A batch that fails is run again row by row, so that one caller's row fails alone: which rows failed goes into
``errors``, and rows with NaN or infinite outputs into ``invalid``. What onnxruntime says goes to stderr; over
the wire goes the error's name only, for its text names files and addresses.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from steersman.dataplane.replica.errors import (
    BAD_FRAME,
    MODEL_ERROR,
    WRONG_SHAPE,
    BatchError,
    LoadError,
    one_line,
)
from steersman.dataplane.replica.model import Meta, Pieces, Signature
from steersman.dataplane.replica.onnx_file import opened
from steersman.dataplane.replica.settings import Settings
from steersman.ports import replica_wire as wire

WARM_DIMS = (16, 1, 64, 224)
"""Sizes tried for dimensions that the model leaves free, in this order, until one is accepted."""
WARM_ELEMENTS_MAX = 2**24
"""The most elements of one input that warming makes."""
LOG_ERRORS_ONLY = 3
HINT_BATCH = "its batch dimension is declared free but is not: export it again, or set batch_size_max to 1"

TYPES = {
    "tensor(bool)": "BOOL", "tensor(uint8)": "UINT8", "tensor(int8)": "INT8", "tensor(uint16)": "UINT16",
    "tensor(int16)": "INT16", "tensor(float16)": "FP16", "tensor(uint32)": "UINT32", "tensor(int32)": "INT32",
    "tensor(float)": "FP32", "tensor(uint64)": "UINT64", "tensor(int64)": "INT64", "tensor(double)": "FP64",
}  # fmt: skip
NUMPY = {
    "BOOL": "?", "UINT8": "u1", "INT8": "i1", "UINT16": "<u2", "INT16": "<i2", "FP16": "<f2",
    "UINT32": "<u4", "INT32": "<i4", "FP32": "<f4", "UINT64": "<u8", "INT64": "<i8", "FP64": "<f8",
}  # fmt: skip

RUN_ERRORS = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.RuntimeException, ort_errors.NotImplemented,
    ort_errors.EPFail, ort_errors.InvalidGraph, ort_errors.EngineError, ValueError, RuntimeError, MemoryError,
)  # fmt: skip
LOAD_ERRORS = (*RUN_ERRORS, ort_errors.InvalidProtobuf, ort_errors.NoSuchFile, ort_errors.NoModel)

if TYPE_CHECKING:
    from typing import TypeGuard  # Python 3.9 has none

Array = np.ndarray[Any, np.dtype[Any]]


class TooLargeError(ValueError):
    """Zeros of that size are not made."""


class Tensor(NamedTuple):
    """One input or output. `shape` is without the batch dimension."""

    name: str
    dtype: str
    numpy: np.dtype[Any]
    shape: tuple[int | None, ...]

    def described(self) -> dict[str, Any]:
        """As HELLO says it."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    def fits(self, dims: object) -> TypeGuard[list[int]]:
        """Whether these are dims of such a tensor, without the batch dimension."""
        if not isinstance(dims, list) or len(dims) != len(self.shape):
            return False
        for place, size in enumerate(dims):
            if type(size) is not int or size < 0 or self.shape[place] not in (None, size):
                return False
        return True


class OnnxModel:
    """A loaded and warm model."""

    def __init__(
        self, session: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], rows_max: int
    ) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = outputs
        self._names = [tensor.name for tensor in outputs]
        fixed = all(None not in tensor.shape for tensor in outputs)
        self._shapes = {tensor.name: list(tensor.shape) for tensor in outputs} if fixed else None
        self._floats = [place for place, tensor in enumerate(outputs) if tensor.numpy.kind == "f"]
        self.signature = Signature(
            kind="tensor",
            batch_size_max=rows_max,
            inputs=[tensor.described() for tensor in inputs],
            outputs=[tensor.described() for tensor in outputs],
        )

    def run(self, frame: wire.Frame) -> tuple[Meta, Pieces]:
        """One batch. Raises BatchError."""
        feeds, rows = self._feeds(frame), frame.rows
        errors: dict[str, str] = {}
        try:
            arrays = self.compute(feeds, rows)
        except BatchError as error:
            if rows == 1 or error.code != MODEL_ERROR:
                raise
            arrays, errors = self._one_by_one(feeds, rows)
        meta: Meta = {"shapes": self._shapes or self._shapes_of(arrays)}
        payload = [_bytes_of(array) for array in arrays]
        if sum(map(len, payload)) > wire.BODY_BYTES_MAX - wire.META_BYTES_MAX:
            raise BatchError(MODEL_ERROR, "the outputs of the model are larger than a frame may be")
        if errors:
            meta["errors"] = errors
        bad = self._not_finite(arrays, rows)
        if bad:
            meta["invalid"] = bad
            sys.stderr.write(f"{len(bad)} of {rows} rows of a batch came out as NaN or infinity\n")
        return meta, payload

    def _shapes_of(self, arrays: list[Array]) -> dict[str, list[int]]:
        return {name: list(arrays[place].shape[1:]) for place, name in enumerate(self._names)}

    def _feeds(self, frame: wire.Frame) -> dict[str, Array]:
        shapes, payload = frame.meta.get("shapes"), frame.payload
        if not isinstance(shapes, dict):
            raise BatchError(BAD_FRAME, "a batch without shapes")
        feeds, offset = {}, 0
        for tensor in self._inputs:
            dims = shapes.get(tensor.name)
            if not tensor.fits(dims):
                raise BatchError(
                    BAD_FRAME, one_line(f"the shape of input {tensor.name} does not fit the model")
                )
            count = frame.rows * math.prod(dims)
            end = offset + count * tensor.numpy.itemsize
            if end > len(payload):
                raise BatchError(BAD_FRAME, "a batch has fewer bytes than its shapes say")
            feeds[tensor.name] = _view(payload[offset:end], tensor).reshape(frame.rows, *dims)
            offset = end
        if offset != len(payload):
            raise BatchError(BAD_FRAME, "a batch has more bytes than its shapes say")
        return feeds

    def compute(self, feeds: dict[str, Array], rows: int) -> list[Array]:
        """Run the model and hold its answer to its signature. Raises BatchError."""
        try:
            arrays: list[Array] = self._session.run(self._names, feeds)
        except RUN_ERRORS as error:
            sys.stderr.write(f"the model raised {type(error).__name__}: {one_line(str(error))}\n")
            raise BatchError(MODEL_ERROR, f"the model raised {type(error).__name__}") from error
        for place, tensor in enumerate(self._outputs):
            _check_output(arrays[place], tensor, rows)
        return arrays

    def _one_by_one(self, feeds: dict[str, Array], rows: int) -> tuple[list[Array], dict[str, str]]:
        """Each row by itself; zeros for those that fail. Raises BatchError when all do."""
        errors: dict[str, str] = {}
        answers: dict[int, list[Array]] = {}
        for row in range(rows):
            try:
                answers[row] = self.compute({name: feed[row : row + 1] for name, feed in feeds.items()}, 1)
            except BatchError as error:
                errors[str(row)] = error.text
        if not answers:
            raise BatchError(MODEL_ERROR, next(iter(errors.values())))
        blank = [np.zeros_like(array) for array in next(iter(answers.values()))]
        try:
            columns = [answers.get(row, blank) for row in range(rows)]
            return [np.concatenate([row[i] for row in columns]) for i, _ in enumerate(blank)], errors
        except ValueError as error:
            raise BatchError(WRONG_SHAPE, "rows of one batch have outputs of different shapes") from error

    def _not_finite(self, arrays: list[Array], rows: int) -> list[int]:
        found: set[int] = set()
        for place in self._floats:
            array = arrays[place]
            # The sum of squares is a quick look: it is finite unless a value is not, or is very large.
            if not math.isfinite(np.vdot(array, array)):
                finite = np.isfinite(array).reshape(rows, -1).all(axis=1)
                found.update(np.flatnonzero(~finite).tolist())
        return sorted(found)


def _view(data: memoryview, tensor: Tensor) -> Array:
    if not data:
        return np.empty(0, tensor.numpy)
    if tensor.dtype == "BOOL":
        return np.frombuffer(data, "u1").astype("?")  # any other byte than 0 and 1 would be no bool to C++
    return np.frombuffer(data, tensor.numpy)


def _bytes_of(array: Array) -> bytes | memoryview:
    if array.size == 0 or not array.flags.c_contiguous:
        return array.tobytes()
    return array.data.cast("B")


def _check_output(array: object, tensor: Tensor, rows: int) -> None:
    """Raises BatchError unless the array is what the tensor declares."""
    if not isinstance(array, np.ndarray):
        raise BatchError(WRONG_SHAPE, one_line(f"output {tensor.name} is no tensor"))
    if array.dtype != tensor.numpy:
        raise BatchError(WRONG_SHAPE, one_line(f"output {tensor.name} is {array.dtype}, not {tensor.dtype}"))
    if array.ndim == 0 or array.shape[0] != rows or not tensor.fits(list(array.shape[1:])):
        declared = [rows, *("any" if size is None else size for size in tensor.shape)]
        raise BatchError(
            WRONG_SHAPE, one_line(f"output {tensor.name} has the shape {list(array.shape)}, not {declared}")
        )


def load(settings: Settings) -> tuple[OnnxModel, str]:
    """The model, warm, and the line that says what it is. Raises LoadError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with opened(settings.model) as file:
        try:
            session = onnxruntime.InferenceSession(file.path, options, providers=["CPUExecutionProvider"])
        except LOAD_ERRORS as error:
            raise _refused(settings.model, str(error)) from error
    inputs, rows_max = _inputs(session, settings.batch_size_max)
    outputs = _outputs(session, _Warmer(session, inputs, rows_max))
    model = OnnxModel(session, inputs, outputs, rows_max)
    return model, f"{file.digest}, {file.size_bytes} bytes, {settings.threads} threads, batches of {rows_max}"


def _refused(path: str, why: str) -> LoadError:
    hint = "check the model with onnx.checker.check_model"
    if "not a registered" in why or "No opset import" in why or "custom op" in why.lower():
        hint = (
            "only ONNX's own operators and those of ONNX Runtime are served: export without custom operators"
        )
    elif "opset" in why or "IR version" in why:
        hint = "export it for an older opset, or install a newer onnxruntime"
    return LoadError(f"onnxruntime refuses {path}: {re.sub(r'/proc/self/fd/[0-9]+', path, why)}", hint=hint)


def _type(given: Any, what: str) -> str:
    dtype = TYPES.get(given.type)
    if dtype is not None:
        return dtype
    hint = "export it as plain numbers"
    if given.type.startswith(("seq", "map", "optional")):
        hint = "export with zipmap=False, so that probabilities come as one tensor"
    elif given.type == "tensor(string)":
        hint = "encode text before the model, or serve it through a callable"
    raise LoadError(f"{what} {given.name} is a {given.type}, which is not served", hint=hint)


def _inputs(session: Any, rows_max: int) -> tuple[list[Tensor], int]:
    """The inputs and how many rows a batch may have: one, when the model fixes its batch dimension."""
    tensors = []
    for given in session.get_inputs():
        dtype = _type(given, "input")
        if not given.shape:
            raise LoadError(
                f"input {given.name} has no batch dimension", hint="export it with a first, free one"
            )
        if isinstance(given.shape[0], int):
            if given.shape[0] != 1:
                raise LoadError(
                    f"input {given.name} takes exactly {given.shape[0]} rows at once",
                    hint="export the model with a free first dimension (dynamic_axes, or dynamic_shapes)",
                )
            rows_max = 1
        tensors.append(Tensor(given.name, dtype, np.dtype(NUMPY[dtype]), _dims(given.shape)))
    if not tensors:
        raise LoadError("the model has no input", hint="a model that is served answers something")
    return tensors, rows_max


def _dims(shape: Sequence[object]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) and size >= 0 else None for size in shape[1:])


class _Warmer:
    """Runs the bare session on zeros."""

    def __init__(self, session: Any, inputs: Sequence[Tensor], rows_max: int) -> None:
        self._session = session
        self._inputs = inputs
        self.rows_max = rows_max
        self.free = any(None in tensor.shape for tensor in inputs)

    def one_row(self) -> tuple[list[Array], int] | Exception:
        """The outputs for one row and the size of free dims that gave them; why there are none, else."""
        why: Exception | None = None
        for size in WARM_DIMS if self.free else (1,):
            try:
                return self.run(1, size), size
            except RUN_ERRORS as error:
                why = why or error
        assert why is not None, "something was tried"
        return why

    def run(self, rows: int, size: int) -> list[Array]:
        """The outputs for rows of zeros. Raises RUN_ERRORS."""
        feeds = {}
        for tensor in self._inputs:
            shape = (rows, *(size if known is None else known for known in tensor.shape))
            if math.prod(shape) > WARM_ELEMENTS_MAX:
                raise TooLargeError(f"input {tensor.name} is too large to be warmed")
            feeds[tensor.name] = np.zeros(shape, tensor.numpy)
        arrays: list[Array] = self._session.run(None, feeds)
        return arrays


def _outputs(session: Any, warmer: _Warmer) -> list[Tensor]:
    """The outputs as declared, or as they come where nothing is; warms the model. Raises LoadError."""
    dtypes = [_type(given, "output") for given in session.get_outputs()]
    warmed = warmer.one_row()
    if isinstance(warmed, Exception) and not warmer.free and not isinstance(warmed, TooLargeError):
        raise LoadError(
            f"the model fails on a row of zeros: {warmed}", hint="try it with onnxruntime by hand"
        )
    tensors = []
    for place, given in enumerate(session.get_outputs()):
        shape: Sequence[object] = given.shape
        if not shape and not isinstance(warmed, Exception):
            shape = [None] * warmed[0][place].ndim
        if not shape:
            raise LoadError(
                f"output {given.name} has no batch dimension", hint="export it with the shape of its outputs"
            )
        tensors.append(Tensor(given.name, dtypes[place], np.dtype(NUMPY[dtypes[place]]), _dims(shape)))
    if isinstance(warmed, Exception):
        sys.stderr.write(f"the model could not be warmed with zeros: {one_line(str(warmed))}\n")
    else:
        _check_warm(tensors, warmer, *warmed)
    return tensors


def _check_warm(tensors: Sequence[Tensor], warmer: _Warmer, first: list[Array], size: int) -> None:
    rows = 1
    try:
        for place, tensor in enumerate(tensors):
            _check_output(first[place], tensor, 1)
        rows = warmer.rows_max
        if rows > 1:
            arrays = warmer.run(rows, size)
            for place, tensor in enumerate(tensors):
                _check_output(arrays[place], tensor, rows)
    except BatchError as error:
        raise LoadError(
            f"the model answers {rows} rows of zeros wrongly: {error.text}",
            hint=HINT_BATCH,
        ) from error
    except TooLargeError as error:
        sys.stderr.write(f"a batch of {rows} rows was not warmed: {error}\n")
    except RUN_ERRORS as error:
        raise LoadError(
            f"the model answers one row, but not {rows}: {error}",
            hint=HINT_BATCH,
        ) from error
