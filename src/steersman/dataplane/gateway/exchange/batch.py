"""One batch: calls to one INFER frame, and its RESULT cut up into what each call gets.

Theory: every call owns a run of rows, in the order of the batch; the offsets follow from the calls' row
counts alone. A result is believed only when its row count, its shapes and its length are exactly those that
the replica's own signature and the batch call for; anything else is an error of the whole batch, so that a
byte of one caller's answer can never be read into another's.
"""

from itertools import accumulate, pairwise
from math import prod
from typing import Any

from steersman.dataplane.gateway.call import Call
from steersman.dataplane.gateway.exchange.meter import Meter
from steersman.dataplane.gateway.exchange.queue import Bucket
from steersman.dataplane.gateway.signature import Signature, Tensor
from steersman.ports.replica_wire import BODY_BYTES_MAX, DTYPE_BYTES, INFER, META_BYTES_MAX, Frame, pack

BATCH_BYTES_MAX = 64 * 2**20
"""A batch grows no further beyond this; one call alone may be larger."""
CALL_BYTES_MAX = BODY_BYTES_MAX - META_BYTES_MAX
"""The most that one call's rows may hold, so that its frame can be sent."""
ELEMENTS_MAX = 2**40
ERROR_CHARS_MAX = 2_000
"""Of what a replica says about an error, so much goes into an answer."""
INVALID = "the model's output for this row is not a finite number"


class Batch:
    """Calls that went to a replica together. A call that ended meanwhile no longer has it as its `state`."""

    __slots__ = (
        "begun",
        "bucket",
        "calls",
        "heard",
        "link",
        "live",
        "meter",
        "number",
        "over",
        "overdue_s",
        "rows",
        "sent",
    )

    def __init__(self, link: Any, calls: list[Call], bucket: Bucket, now: float) -> None:
        self.link = link  # a Link; the type is a layer above
        self.meter: Meter = link.meter
        self.number: int = link.next_number()
        self.over = False  # its credit is back, and its calls no longer count as under way
        self.calls = calls
        self.bucket = bucket
        self.rows = sum(call.rows for call in calls)
        self.live = len(calls)  # calls that still wait for it
        self.sent = self.heard = now
        self.overdue_s = 0.0
        self.begun = False  # a piece of its stream has gone to the caller


class Group:
    """Calls that are to be tried again together, as the next batch. The `state` of each while it waits."""

    __slots__ = ("bucket", "calls")

    def __init__(self, calls: list[Call], bucket: Bucket | None) -> None:
        self.calls = calls
        self.bucket = bucket


def frame(batch: Batch, signature: Signature, now: float) -> list[bytes | memoryview]:
    """The INFER frame, as pieces for one gathering write."""
    calls = batch.calls
    last = calls[0].deadline if len(calls) == 1 else max(call.deadline for call in calls)
    meta: dict[str, Any] = {"timeout_ms": max(int((last - now) * 1000), 1)}
    payload: list[bytes]
    if signature.kind == "tensor":
        shapes = batch.bucket.shapes
        meta["shapes"] = {tensor.name: shapes[index] for index, tensor in enumerate(signature.inputs)}
        payload = [call.payload[index] for index in range(len(signature.inputs)) for call in calls]
    else:
        payload = [text for call in calls for text in call.payload]
        meta["lengths"] = list(map(len, payload))
    traced = [call for call in calls if call.trace is not None]
    if traced:
        meta["trace"] = _traces(calls)
    return pack(INFER, batch.number, batch.rows, meta, *payload)


def _traces(calls: list[Call]) -> dict[str, str]:
    """Trace parents by the first row of each call."""
    traces, row = {}, 0
    for call in calls:
        if call.trace is not None:
            traces[str(row)] = call.trace
        row += call.rows
    return traces


def cut(batch: Batch, result: Frame, signature: Signature) -> list[Any]:
    """What each call gets, in order. Raises ValueError, in words, when it is no such result."""
    if result.rows != batch.rows:
        raise ValueError(f"the replica answered {result.rows} rows to a batch of {batch.rows}")
    if signature.kind == "tensor":
        return _cut_tensors(batch, result, signature.outputs)
    return _cut_texts(batch, result)


def failed_rows(batch: Batch, result: Frame) -> dict[int, str]:
    """Rows that failed alone, with why: their output is not finite, or the model raised on them.

    Raises ValueError when the replica's lists are no lists of such rows.
    """
    meta = result.meta
    if "invalid" not in meta and "errors" not in meta:
        return {}
    rows, errors = meta.get("invalid", []), meta.get("errors", {})
    if not isinstance(rows, list) or not isinstance(errors, dict):
        raise ValueError("the replica's lists of failed rows are none")
    failed = dict.fromkeys(rows, INVALID)
    failed |= {int(row): str(text)[:ERROR_CHARS_MAX] for row, text in errors.items()}
    if not all(_is_count(row) and row < batch.rows for row in failed):
        raise ValueError("the replica's lists of failed rows name others")
    return failed


def measured(value: object) -> int:
    """Microseconds that a replica reports; 0 when it reports nothing usable."""
    return int(value) if isinstance(value, int | float) and 0 <= value < ELEMENTS_MAX else 0


def _cut_tensors(batch: Batch, result: Frame, outputs: tuple[Tensor, ...]) -> list[Any]:
    shapes = result.meta.get("shapes")
    if not isinstance(shapes, dict):
        raise ValueError("the replica's answer has no shapes")
    columns: list[tuple[tuple[int, ...], int, int]] = []  # dims, bytes a row, where it begins
    at = 0
    for tensor in outputs:
        dims = _dims(shapes.get(tensor.name), tensor)
        size = prod(dims) * DTYPE_BYTES[tensor.dtype]
        columns.append((dims, size, at))
        at += size * batch.rows
    if at != len(result.payload):
        raise ValueError(
            f"the replica's answer has {len(result.payload)} bytes where its shapes call for {at}"
        )
    data = bytes(result.payload)  # one copy: slices of bytes cost half of those of a view
    answers: list[Any] = []
    row = 0
    for call in batch.calls:
        end = row + call.rows
        answers.append([(dims, data[at + row * size : at + end * size]) for dims, size, at in columns])
        row = end
    return answers


def _dims(found: object, tensor: Tensor) -> tuple[int, ...]:
    """The dims of one output, checked against the signature."""
    if not isinstance(found, list) or len(found) != len(tensor.shape) or not all(map(_is_count, found)):
        raise ValueError(
            f"the replica's answer has no shape for output {tensor.name!r} that fits its signature"
        )
    dims: tuple[int, ...] = tuple(found)
    wrong = any(want is not None and want != dim for want, dim in zip(tensor.shape, dims, strict=True))
    if wrong or prod(dims) > ELEMENTS_MAX:
        raise ValueError(f"output {tensor.name!r} has shape {list(dims)}, not {list(tensor.shape)}")
    return dims


def _cut_texts(batch: Batch, result: Frame) -> list[Any]:
    lengths = result.meta.get("lengths")
    if not isinstance(lengths, list) or len(lengths) != batch.rows or not all(map(_is_count, lengths)):
        raise ValueError("the replica's answer has no length for each row")
    ends = list(accumulate(lengths, initial=0))
    if ends[-1] != len(result.payload):
        raise ValueError(
            f"the replica's answer has {len(result.payload)} bytes, its lengths add to {ends[-1]}"
        )
    data = bytes(result.payload)
    texts = [data[start:end] for start, end in pairwise(ends)]
    answers: list[Any] = []
    row = 0
    for call in batch.calls:
        answers.append(texts[row : row + call.rows])
        row += call.rows
    return answers


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
