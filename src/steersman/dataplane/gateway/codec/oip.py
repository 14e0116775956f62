"""The Open Inference Protocol, version 2: JSON, and its binary extension.

Theory: the envelope is decoded with each `data` left as raw text; then every input is read by the decoder
made for it, flat or nested, or taken from the bytes that follow the JSON (``binary_data_size``). Nothing is
believed: the shape says how many bytes or numbers must be there, and they are counted; what follows the
JSON is the inputs' bytes, all of it. Shapes carry the batch dim first.

Unknown parameters are let pass, as the protocol has it, but those that would change what the answer means
are refused: classification and shared memory. Unknown keys beside them are refused.
"""

import math
import re
from collections.abc import Sequence
from types import GenericAlias
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.codec.predict import check_rows, describe
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
from steersman.dataplane.gateway.codec.tensors import Input, check_binary, pack, pack_rows, unpacker
from steersman.dataplane.gateway.signature import Tensor

ID_CHARS_MAX: Final = 256
"""Of a request's id, which is echoed."""
_NESTED = re.compile(rb"\s*\[\s*\[")
_Size = Annotated[int, msgspec.Meta(ge=0)]


class _Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters that would change what a tensor or an answer means, and are not served."""

    classification: Any = UNSET
    shared_memory_region: Any = UNSET


class _InputParameters(_Meaning, frozen=True, kw_only=True):
    binary_data_size: _Size | UnsetType = UNSET


class _OutputParameters(_Meaning, frozen=True, kw_only=True):
    binary_data: bool | UnsetType = UNSET


class _RequestParameters(_Meaning, frozen=True, kw_only=True):
    binary_data_output: bool = False


class _Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    shape: list[_Size]
    datatype: str
    parameters: _InputParameters | None = None
    data: msgspec.Raw | UnsetType = UNSET


class _Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    parameters: _OutputParameters | None = None


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str | None = None
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    parameters: _RequestParameters | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """`Call.context`: what the answer must hold. `outputs`: (place in the signature, as binary)."""

    id: str | None
    outputs: tuple[tuple[int, bool], ...]


_decode: Any = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


class Protocol:
    """Reads and writes inference requests for one signature."""

    def __init__(self, name: str, inputs: Sequence[Input], outputs: Sequence[Tensor], rows_max: int) -> None:
        self.name = name
        self.inputs = [(one, _Data(one)) for one in inputs]
        self.input_names = [one.name for one in inputs]
        self.outputs = [(one, unpacker(one.dtype)) for one in outputs]
        self.output_names = [one.name for one in outputs]
        self.rows_max = rows_max

    def read(self, call: Call, body: bytes, json_bytes: int | None) -> None:
        """Fill the call. Raises BadRequest."""
        if json_bytes is not None and not 0 < json_bytes <= len(body):
            raise BadRequest(
                f"Inference-Header-Content-Length is {json_bytes}, but the body has {len(body)} bytes",
                hint="it is the number of bytes of JSON before the binary data",
            )
        request = _envelope(body if json_bytes is None else body[:json_bytes])
        _refuse_meaning(request.parameters, "the request")
        given = self._by_name(request)
        blobs = _blobs(request.inputs, body, json_bytes)
        rows, payload = 0, []
        shapes: list[tuple[int, ...]] = []
        for one, data in self.inputs:
            item = given[one.name]
            dims = self._dims(one, item)
            if shapes and item.shape[0] != rows:
                raise BadRequest("the inputs differ in their first dim, the number of rows")
            rows = item.shape[0]
            blob = blobs.get(one.name)
            payload.append(data.text(item) if blob is None else data.binary(item, blob))
            shapes.append(dims)
        wanted = self._wanted(request)
        call.rows, call.shapes, call.payload, call.context = rows, tuple(shapes), payload, wanted

    def write(self, call: Call, answer: Answer) -> tuple[bytes, int | None]:
        """The answer, and the bytes of its JSON when binary data follows."""
        wanted: Wanted = call.context
        outputs, blobs = [], []
        for place, binary in wanted.outputs:
            tensor, unpack = self.outputs[place]
            dims, data = answer.outputs[place]
            item: dict[str, Any] = {
                "name": tensor.name,
                "shape": (call.rows, *dims),
                "datatype": tensor.dtype,
            }
            if binary:
                item["parameters"] = {"binary_data_size": len(data)}
                blobs.append(data)
            else:
                item["data"] = unpack(data)
            outputs.append(item)
        head = {"model_name": self.name} if wanted.id is None else {"model_name": self.name, "id": wanted.id}
        text = _encode({**head, "outputs": outputs})
        return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)

    def _by_name(self, request: _Request) -> dict[str, _Input]:
        """The inputs given, each once, and none that the model does not have."""
        given: dict[str, _Input] = {}
        for item in request.inputs:
            if item.name not in self.input_names:
                raise unknown_name("input", item.name, self.input_names)
            if item.name in given:
                raise BadRequest(f"input {shown(item.name)} is given twice", hint="give each input once")
            given[item.name] = item
        missing = [name for name in self.input_names if name not in given]
        if missing:
            raise BadRequest(f"missing: input {names_of(missing)}", hint="every input must be given")
        return given

    def _dims(self, one: Input, item: _Input) -> tuple[int, ...]:
        """The dims of a row, if datatype and shape are what the input takes."""
        where = f"input {shown(one.name)}"
        if item.datatype != one.dtype:
            why = "; BYTES (texts) are not served" if item.datatype == "BYTES" else ""
            raise BadRequest(
                f"{where}: datatype is {shown(item.datatype)}, expected {one.dtype}{why}", hint=one.takes
            )
        fits = len(item.shape) == len(one.shape) + 1 and all(
            given == dim if dim is not None else given > 0
            for given, dim in zip(item.shape[1:], one.shape, strict=True)
        )
        if not fits:
            raise BadRequest(f"{where}: the shape does not fit", hint=f"{one.takes}, after the batch dim")
        check_rows(item.shape[0], self.rows_max)
        return tuple(item.shape[1:])

    def _wanted(self, request: _Request) -> Wanted:
        identity = request.id
        if identity is not None and (len(identity) > ID_CHARS_MAX or not identity.isprintable()):
            raise BadRequest(f"the id is not at most {ID_CHARS_MAX} printable characters")
        binary = request.parameters.binary_data_output if request.parameters else False
        if not request.outputs:
            return Wanted(id=identity, outputs=tuple((at, binary) for at in range(len(self.outputs))))
        chosen: dict[int, bool] = {}
        for item in request.outputs:
            if item.name not in self.output_names:
                raise unknown_name("output", item.name, self.output_names)
            _refuse_meaning(item.parameters, f"output {shown(item.name)}")
            place = self.output_names.index(item.name)
            if place in chosen:
                raise BadRequest(f"output {shown(item.name)} is asked for twice")
            own = item.parameters.binary_data if item.parameters else UNSET
            chosen[place] = binary if own is UNSET else own
        return Wanted(id=identity, outputs=tuple(chosen.items()))


class _Data:
    """Reads the data of one input."""

    def __init__(self, one: Input) -> None:
        rows: Any = GenericAlias(list, (one.row,))
        flat: Any = GenericAlias(list, (one.element,))
        self.one = one
        self.where = f"input {shown(one.name)}"
        self.decode_flat: Any = msgspec.json.Decoder(flat).decode
        self.decode_rows: Any = msgspec.json.Decoder(rows).decode

    def text(self, item: _Input) -> bytes:
        """Bytes of data given as JSON, flat or nested."""
        if item.data is UNSET:
            raise BadRequest(f"{self.where}: neither data nor binary_data_size is given")
        text = bytes(item.data)
        nested = bool(self.one.shape) and _NESTED.match(text) is not None
        try:
            values = self.decode_rows(text) if nested else self.decode_flat(text)
        except FAULTS as error:
            fault = read_fault(error) or Fault(path="", words="it cannot be read")
            inside = Fault(path=f"data{fault.path}", words=fault.words, bound=fault.bound)
            raise describe(inside, self.one) from None
        if nested:
            return self._nested(item, values)
        if len(values) != math.prod(item.shape):
            raise self._lie(len(values), "values")
        return pack(self.one, values, self.where)

    def binary(self, item: _Input, blob: bytes) -> bytes:
        """The bytes given, if they are what the shape says and hold nothing that text could not."""
        if item.data is not UNSET:
            raise BadRequest(f"{self.where}: both data and binary_data_size are given")
        if len(blob) != math.prod(item.shape) * self.one.item_bytes:
            raise self._lie(len(blob), "bytes")
        check_binary(self.one, blob)
        return blob

    def _nested(self, item: _Input, values: list[Any]) -> bytes:
        if len(values) != item.shape[0]:
            raise self._lie(len(values), "rows")
        dims, data = pack_rows(self.one, values, self.where)
        if list(dims) != item.shape[1:]:
            raise BadRequest(f"{self.where}: the data is not of the shape given")
        return data

    def _lie(self, count: int, what: str) -> BadRequest:
        return BadRequest(
            f"{self.where}: {count} {what} of data are not what its shape and datatype say",
            hint=f"{self.one.takes}, after the batch dim",
        )


def metadata(
    name: str, revisions: Sequence[int], inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> bytes:
    """The protocol's model metadata; a dim of any size is -1, and so is the batch dim."""

    def tensors(some: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "datatype": one.dtype,
                "shape": [-1, *(-1 if dim is None else dim for dim in one.shape)],
            }
            for one in some
        ]

    return _encode(
        {
            "name": name,
            "versions": [str(revision) for revision in revisions],
            "platform": "steersman",
            "inputs": tensors(inputs),
            "outputs": tensors(outputs),
        }
    )


def _envelope(text: bytes) -> _Request:
    try:
        request: _Request = _decode(text)
    except FAULTS as error:
        fault = read_fault(error)
        if fault is None:
            raise not_json(error) from None
        if fault.unknown is not None:
            known = sorted({*_Request.__struct_fields__, *_Input.__struct_fields__})
            raise unknown_name("key", fault.unknown, known) from None
        raise describe(fault, None) from None
    return request


def _blobs(items: Sequence[_Input], body: bytes, json_bytes: int | None) -> dict[str, bytes]:
    """What follows the JSON, cut as the inputs say; all of it, and no more."""
    blobs: dict[str, bytes] = {}
    at = len(body) if json_bytes is None else json_bytes
    for item in items:
        _refuse_meaning(item.parameters, f"input {shown(item.name)}")
        size = item.parameters.binary_data_size if item.parameters else UNSET
        if size is UNSET:
            continue
        if json_bytes is None:
            raise BadRequest(
                f"input {shown(item.name)}: binary_data_size is given without binary data",
                hint="send the header Inference-Header-Content-Length",
            )
        if size > len(body) - at:
            raise BadRequest(f"input {shown(item.name)}: binary_data_size is more than the body has left")
        blobs[item.name] = body[at : at + size]
        at += size
    if at != len(body):
        raise BadRequest(f"{len(body) - at} bytes after the JSON belong to no input")
    return blobs


def _refuse_meaning(parameters: _Meaning | None, where: str) -> None:
    if parameters is not None:
        for name in _Meaning.__struct_fields__:
            if getattr(parameters, name) is not UNSET:
                raise BadRequest(f"{where}: the parameter {name!r} is not served")
