"""What a gateway and a replica say to one another: frames on a Unix stream socket. Standard library only,
for a replica runs in the user's own environment.

    frame   = length u32 | kind u8 | flags u8 | rows u16 | batch u64 | body      (little endian; `length` is
              that of the body; a header is HEADER_BYTES long)
    body    = meta length u32 | meta (JSON object, UTF-8) | payload

The replica listens on ``<run directory>/SOCKET`` only once its model is loaded and warm, so that being able
to connect is readiness. Every gateway process opens one connection to every replica.

    HELLO       replica → gateway, first: meta {"protocol": 1, "run", "service", "revision",
                "kind": "tensor" | "json", "stream": bool, "inputs": [Tensor], "outputs": [Tensor],
                "batch_size_max": int, "batches_max": int, "load_ms": int, "signature": digest}
    INFER       gateway → replica: a batch of `rows` rows. meta {"shapes": {input: [dims without the batch
                dim]}, "trace": {row: traceparent}?, "timeout_ms": int}. tensor kind: payload is, for each
                input in HELLO's order, the rows one after another, C order, little endian. json kind: payload
                is the rows' JSON texts one after another, meta has "lengths": [bytes of each].
    RESULT      replica → gateway: as many rows, same batch number. meta {"shapes": {output: [dims]},
                "run_us", "cpu_us", "invalid": [rows whose output is NaN or infinite]?, "errors": {row: one
                line}?}; payload as above in HELLO's order of outputs, or JSON texts with "lengths". A row
                in "errors" failed alone and one in "invalid" has no usable answer: tensors hold zeros or
                what came, JSON holds null. "cpu_us" sums up, over batches, to what the process used.
    PART        one piece of a stream: `rows` 1; meta {"row", "last": bool, "error"?: text}; payload one JSON
                text. A stream ends with "last": a frame of its own without payload, which has "run_us" and
                "cpu_us" too. (kind json with "stream" only; one row a batch)
    ERROR       the whole batch failed: meta {"error": one line, "code": "model-error" | "wrong-shape" |
                "bad-frame"}. Nothing else comes for this batch. For bytes that are no frame it comes with
                batch 0 and `rows` 0, and the replica closes; a batch that merely does not fit the signature
                leaves the connection as it is.
    CANCEL      gateway → replica: nobody waits for this batch any more. It may be finished or dropped; a
                RESULT, ERROR or last PART comes all the same.
    DRAIN       replica → gateway: send no new batch. Comes once, when the replica is told to end.
    DRAINED     gateway → replica: it will not. When all gateways have said so, or have closed, and every
                batch is answered, the replica closes and ends.

`batches_max` is how many batches one connection may have under way at once (credits). A replica answers
batches in any order. Tensor = {"name", "dtype", "shape": [int or null for any, without the batch dim]}.
"""

from __future__ import annotations  # a replica may run on Python 3.9

import json
import struct
from typing import Any, Final, NamedTuple

PROTOCOL: Final = 1
HEADER = struct.Struct("<IBBHQ")
META = struct.Struct("<I")
HEADER_BYTES: Final = 16
BODY_BYTES_MAX: Final = 256 * 2**20
META_BYTES_MAX: Final = 2**20

HELLO: Final = 1
INFER: Final = 2
RESULT: Final = 3
PART: Final = 4
ERROR: Final = 5
CANCEL: Final = 6
DRAIN: Final = 7
DRAINED: Final = 8

_ENCODER = json.JSONEncoder(separators=(",", ":"))

DTYPE_BYTES: Final = {
    "BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2,
    "UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8,
}  # fmt: skip
"""Data types of the Open Inference Protocol that are served, and the bytes of one element."""


class Frame(NamedTuple):
    """One frame, read."""

    kind: int
    rows: int
    batch: int
    meta: dict[str, Any]
    payload: memoryview


def pack(
    kind: int, batch: int, rows: int, meta: dict[str, Any], *payload: bytes | memoryview
) -> list[bytes | memoryview]:
    """A frame as pieces for one gathering write."""
    text = _ENCODER.encode(meta).encode() if meta else b"{}"
    size = META.size + len(text) + sum(map(len, payload))
    return [HEADER.pack(size, kind, 0, rows, batch) + META.pack(len(text)) + text, *payload]


def unpack(header: bytes | memoryview, body: bytes | memoryview) -> Frame:
    """A frame from its header and its whole body. Raises ValueError for anything that is none."""
    _, kind, _, rows, batch = HEADER.unpack(header)
    if len(body) < META.size:
        raise ValueError("a frame without meta")
    (length,) = META.unpack(body[: META.size])
    end = META.size + length
    if length > META_BYTES_MAX or end > len(body):
        raise ValueError("the meta of a frame is longer than the frame")
    meta = json.loads(bytes(body[META.size : end]))
    if not isinstance(meta, dict):
        raise ValueError("the meta of a frame is no object")
    return Frame(kind, rows, batch, meta, memoryview(body)[end:])
