"""From a request's bytes to rows for a model, and from its outputs to the answer's bytes.

Theory: a pool of replicas has one signature, and one codec made for it. All that can be decided from the
signature is decided when it is made, so that a request runs through closures that fit it. Whatever a caller
sends, reading either fills the call or raises BadRequest; nothing else comes out. Memory is bounded by the
body's limit: JSON becomes at most some 40 times its size for a moment.

A codec that cannot keep what was declared (a range for an input the model does not have) or cannot carry what
the model takes (BYTES) refuses every request and says why: it fails closed, and the gateway goes on.
"""

from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.codec import json_rows, oip, predict
from steersman.dataplane.gateway.codec.refusals import BadRequest, names_of, shown
from steersman.dataplane.gateway.codec.tensors import compile_input
from steersman.dataplane.gateway.signature import Signature
from steersman.ports.gateway import ServiceConfig
from steersman.ports.replica_wire import DTYPE_BYTES

__all__ = ["BadRequest", "Codec", "make_codec"]

FRAME_ROWS_MAX: Final = 65_535
"""Rows that one frame to a replica can count."""
NOT_IMPLEMENTED: Final = 501

Infer = Callable[[Call, bytes, int | None], None]
WriteInfer = Callable[[Call, Answer], tuple[bytes, int | None]]


class Codec:
    """Reads and writes for one signature under one configuration; keeps nothing between calls.

    `read_predict(call, body)` and `read_infer(call, body, json_bytes)` fill rows, payload, shapes and
    context; `json_bytes` is Inference-Header-Content-Length, None for pure JSON. They raise BadRequest, and
    then the call is not changed. `write_predict(call, answer)` and `write_infer(call, answer)` write an
    answer whose outcome is ok for a call that the matching reader filled; the latter also gives the bytes of
    its JSON, None for pure JSON.
    """

    __slots__ = ("_signature", "read_infer", "read_predict", "write_infer", "write_predict")

    read_predict: predict.Reader
    read_infer: Infer
    write_predict: predict.Writer
    write_infer: WriteInfer

    def __init__(self, signature: Signature, config: ServiceConfig) -> None:
        self._signature = signature
        rows_max = min(config.limits.batch_size_max, signature.batch_size_max, FRAME_ROWS_MAX)
        if signature.stream:
            rows_max = 1
        fault = _unservable(signature, config)
        if fault is not None:
            self._refuse_all(fault)
        elif signature.kind == "json":
            self._read_json(rows_max)
        else:
            self._read_tensors(signature, config, rows_max)

    def metadata(self, name: str, revisions: Sequence[int]) -> bytes:
        """The Open Inference Protocol's model metadata."""
        return oip.metadata(name, revisions, self._signature.inputs, self._signature.outputs)

    def _read_tensors(self, signature: Signature, config: ServiceConfig, rows_max: int) -> None:
        ranges = {one.name: one for one in config.inputs}
        inputs = [compile_input(tensor, ranges.get(tensor.name)) for tensor in signature.inputs]
        protocol = oip.Protocol(config.name, inputs, signature.outputs, rows_max)
        self.read_predict = predict.reader(inputs, rows_max)
        self.write_predict = predict.writer(signature.outputs)
        self.read_infer = protocol.read
        self.write_infer = protocol.write

    def _read_json(self, rows_max: int) -> None:
        fault = BadRequest(
            "this service takes JSON values, not tensors", hint="POST the value to /predict/<service>"
        )
        self.read_predict = json_rows.reader(rows_max)
        self.write_predict = json_rows.write
        self.read_infer, self.write_infer = _refusing_infer(fault)

    def _refuse_all(self, fault: BadRequest) -> None:
        def refuse(*_: object) -> NoReturn:
            raise _again(fault)

        self.read_predict = self.write_predict = refuse
        self.read_infer, self.write_infer = _refusing_infer(fault)


def make_codec(signature: Signature, config: ServiceConfig) -> Codec:
    """The codec of a pool."""
    return Codec(signature, config)


def _refusing_infer(fault: BadRequest) -> tuple[Infer, WriteInfer]:
    def refuse(*_: object) -> NoReturn:
        raise _again(fault)

    return refuse, refuse


def _again(fault: BadRequest) -> BadRequest:
    """An exception of its own for each request: one raised twice would gather tracebacks."""
    return BadRequest(fault.message, hint=fault.hint, status=fault.status)


def _unservable(signature: Signature, config: ServiceConfig) -> BadRequest | None:
    """Why no request can be served, if so."""
    if signature.kind == "json":
        names: list[str] = []
    else:
        names = [one.name for one in signature.inputs]
        for one in (*signature.inputs, *signature.outputs):
            if one.dtype not in DTYPE_BYTES:
                return _refusal(f"the model has {shown(one.name)} of {one.dtype}, which is not served")
            if any(character in '"\\' or ord(character) < 32 for character in one.name):
                return _refusal(f"the model has an input or output named {shown(one.name)}")
        if not names or len(set(names)) != len(names):
            return _refusal("the model has no input, or two of one name")
    for declared in config.inputs:
        if declared.name not in names:
            return BadRequest(
                f"a range is declared for input {shown(declared.name)}, which the model does not have",
                hint=f"it has: {names_of(names)}" if names else "it takes JSON values",
                status=NOT_IMPLEMENTED,
            )
    return None


def _refusal(message: str) -> BadRequest:
    return BadRequest(message, hint=f"served are {', '.join(DTYPE_BYTES)}", status=NOT_IMPLEMENTED)
