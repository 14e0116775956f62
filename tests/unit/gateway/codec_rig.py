"""Codecs for tests, and calls read by them."""

import json
import struct
from typing import Any

import pytest

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.codec.codec import BadRequest, Codec, make_codec
from steersman.dataplane.gateway.signature import Signature, Tensor
from steersman.model.service import InputRange, RequestLimits
from steersman.ports.gateway import ServiceConfig

LABELS = (Tensor("label", "INT64", ()), Tensor("scores", "FP32", (2,)))


def config(*ranges: InputRange, rows: int = 8) -> ServiceConfig:
    return ServiceConfig(name="m", revisions=(), limits=RequestLimits(batch_size_max=rows), inputs=ranges)


def tensor_codec(
    *inputs: Tensor, outputs: tuple[Tensor, ...] = LABELS, ranges: tuple[InputRange, ...] = (), rows: int = 8
) -> Codec:
    signature = Signature(kind="tensor", inputs=inputs, outputs=outputs, batch_size_max=64)
    return make_codec(signature, config(*ranges, rows=rows))


def json_codec(rows: int = 8, stream: bool = False) -> Codec:
    return make_codec(Signature(kind="json", stream=stream, batch_size_max=64), config(rows=rows))


def call() -> Call:
    return Call(lambda *_: None)


def predict(codec: Codec, body: Any) -> Call:
    """The call that a body is read into; what is not bytes is written as JSON."""
    made = call()
    codec.read_predict(made, body if isinstance(body, bytes) else json.dumps(body).encode())
    return made


def infer(codec: Codec, request: Any, *blobs: bytes) -> Call:
    made = call()
    text = json.dumps(request).encode()
    codec.read_infer(made, b"".join([text, *blobs]), len(text) if blobs else None)
    return made


def refused_predict(codec: Codec, body: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        predict(codec, body)
    return small(caught.value)


def refused_infer(codec: Codec, request: Any, *blobs: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        infer(codec, request, *blobs)
    return small(caught.value)


def small(error: BadRequest) -> BadRequest:
    """The refusal, which must be a short one for the caller's own mistake."""
    assert error.status == 400
    assert 0 < len(error.message) <= 300
    assert len(error.hint) <= 1_500
    return error


def answer(rows: int = 1) -> Answer:
    """Labels 7, 8, …, and scores of a half and a quarter."""
    labels = struct.pack(f"<{rows}q", *range(7, 7 + rows))
    return Answer("ok", [((), labels), ((2,), struct.pack("<2f", 0.5, 0.25) * rows)])
