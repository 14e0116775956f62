"""Tensors survive text and bytes, against numpy; and no bytes make a codec raise anything but BadRequest."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.codec.codec import BadRequest, Codec, make_codec
from steersman.dataplane.gateway.signature import Signature, Tensor
from steersman.model.service import InputRange, RequestLimits
from steersman.ports.gateway import ServiceConfig

DTYPES = {
    "BOOL": "?", "UINT8": "<u1", "INT8": "<i1", "UINT16": "<u2", "INT16": "<i2", "FP16": "<f2",
    "UINT32": "<u4", "INT32": "<i4", "FP32": "<f4", "UINT64": "<u8", "INT64": "<i8", "FP64": "<f8",
}  # fmt: skip
ROWS_MAX = 5
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)


def config(*ranges: InputRange) -> ServiceConfig:
    return ServiceConfig(name="m", revisions=(), limits=RequestLimits(batch_size_max=ROWS_MAX), inputs=ranges)


def codec_of(*inputs: Tensor, outputs: tuple[Tensor, ...] = (), ranges: tuple[InputRange, ...] = ()) -> Codec:
    return make_codec(
        Signature(kind="tensor", inputs=inputs, outputs=outputs, batch_size_max=ROWS_MAX), config(*ranges)
    )


def call() -> Call:
    return Call(lambda *_: None)


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Any]:
    """An input, some of its dims of any size, and an array of rows of it."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(SHAPES)
    rows = draw(st.integers(1, ROWS_MAX))
    kind = np.dtype(DTYPES[dtype])
    elements = hnp.from_dtype(kind, allow_nan=False, allow_infinity=False)
    array = draw(hnp.arrays(kind, (rows, *shape), elements=elements))
    free = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    declared = tuple(None if any_size else dim for dim, any_size in zip(shape, free, strict=True))
    return Tensor("x", dtype, declared), array


def read_infer(codec: Codec, array: Any, tensor: Tensor, data: Any = None) -> Call:
    """The call of an infer request; binary when no data is given."""
    item: dict[str, Any] = {"name": "x", "shape": array.shape, "datatype": tensor.dtype}
    made = call()
    if data is None:
        item["parameters"] = {"binary_data_size": array.nbytes}
        head = text({"inputs": [item]})
        codec.read_infer(made, head + array.tobytes(), len(head))
    else:
        codec.read_infer(made, text({"inputs": [{**item, "data": data}]}), None)
    return made


@given(batches())
def test_every_form_of_a_tensor_gives_its_bytes(batch: tuple[Tensor, Any]) -> None:
    tensor, array = batch
    codec = codec_of(tensor)
    calls = [call(), call()]
    codec.read_predict(calls[0], text({"instances": array.tolist()}))
    codec.read_predict(calls[1], text({"instances": [{"x": row} for row in array.tolist()]}))
    calls.append(read_infer(codec, array, tensor, array.tolist()))
    calls.append(read_infer(codec, array, tensor, array.ravel().tolist()))
    calls.append(read_infer(codec, array, tensor))
    for made in calls:
        assert made.payload == [array.tobytes()]
        assert made.shapes == (array.shape[1:],)
        assert made.rows == len(array)


@given(batches())
def test_the_fast_reader_and_the_general_one_agree(batch: tuple[Tensor, Any]) -> None:
    tensor, array = batch
    codec = codec_of(tensor)
    row = array[0].tolist()
    for body in (text(row), text({"x": row}), b" " + text(row), b"\n" + text({"x": row})):
        made = call()
        codec.read_predict(made, body)
        assert made.payload == [array[:1].tobytes()]
        assert (made.rows, made.shapes) == (1, (array.shape[1:],))


@given(batches())
def test_outputs_are_written_as_numpy_reads_them(batch: tuple[Tensor, Any]) -> None:
    tensor, array = batch
    codec = codec_of(Tensor("x", "BOOL", ()), outputs=(Tensor("y", tensor.dtype, tensor.shape),))
    kind = np.dtype(DTYPES[tensor.dtype])
    answer = Answer("ok", [(array.shape[1:], array.tobytes())])
    made = call()
    codec.read_predict(made, text({"instances": [True] * len(array)}))
    rows = [row["y"] for row in json.loads(codec.write_predict(made, answer))["predictions"]]
    assert np.array(rows, kind).tobytes() == array.tobytes()
    codec.read_predict(made, b"true")
    single = Answer("ok", [(array.shape[1:], array[:1].tobytes())])
    value = json.loads(codec.write_predict(made, single))["y"]
    assert np.array(value, kind).tobytes() == array[:1].tobytes()
    assert np.array(value).shape == array.shape[1:]
    head = {"inputs": [{"name": "x", "shape": [len(array)], "datatype": "BOOL", "data": [True] * len(array)}]}
    codec.read_infer(made, text(head), None)
    (output,) = json.loads(codec.write_infer(made, answer)[0])["outputs"]
    assert output["shape"] == list(array.shape)
    assert np.array(output["data"], kind).tobytes() == array.tobytes()
    codec.read_infer(made, text({**head, "parameters": {"binary_data_output": True}}), None)
    body, json_bytes = codec.write_infer(made, answer)
    assert body[json_bytes:] == array.tobytes()


def accepts(read: Any) -> bool:
    try:
        read()
    except BadRequest:
        return False
    return True


@given(
    st.sampled_from(["FP16", "FP32", "FP64", "INT8", "UINT16", "INT64", "UINT64"]),
    st.floats(-1e6, 1e6) | st.sampled_from([0.1, 0.7, -0.3]),
    st.floats(0, 1e6),
    st.data(),
)
def test_text_and_bytes_are_accepted_alike_under_a_range(
    dtype: str, minimum: float, width: float, data: st.DataObject
) -> None:
    kind = np.dtype(DTYPES[dtype])
    maximum = minimum + width
    codec = codec_of(Tensor("x", dtype, ()), ranges=(InputRange(name="x", minimum=minimum, maximum=maximum),))
    near = [minimum, maximum, minimum + width / 2]
    if kind.kind == "f":
        drawn = data.draw(st.sampled_from(near) | st.floats(width=64, allow_nan=False, allow_infinity=False))
        value: Any = data.draw(
            st.sampled_from([drawn, math.nextafter(drawn, -1e9), math.nextafter(drawn, 1e9)])
        )
    else:
        value = data.draw(
            st.sampled_from([math.floor(one) for one in near] + [math.ceil(one) for one in near])
        )
        assume(np.iinfo(kind).min <= value <= np.iinfo(kind).max)
    with np.errstate(over="ignore"):
        array = np.array([value], kind)
    by_text = accepts(lambda: codec.read_predict(call(), text(value)))
    assert by_text == accepts(lambda: read_infer(codec, array, Tensor("x", dtype, ())))
    assert by_text == accepts(lambda: read_infer(codec, array, Tensor("x", dtype, ()), [value]))
    if dtype == "FP64" or kind.kind != "f":
        assert by_text == (minimum <= value <= maximum)


@given(
    hnp.arrays(np.uint8, st.integers(1, 64).map(lambda n: n * 8)), st.sampled_from(["FP16", "FP32", "FP64"])
)
def test_binary_floats_are_accepted_when_numpy_calls_them_finite(raw: Any, dtype: str) -> None:
    array = raw.view(DTYPES[dtype])[None]
    codec = codec_of(Tensor("x", dtype, (None,)))
    assert accepts(lambda: read_infer(codec, array, Tensor("x", dtype, (None,)))) == bool(
        np.isfinite(array).all()
    )


CODECS = [
    codec_of(Tensor("x", "FP32", (2,))),
    codec_of(Tensor("x", "INT64", (None, None))),
    codec_of(Tensor("x", "UINT64", ())),
    codec_of(Tensor("x", "FP16", (2, 2)), Tensor("y", "BOOL", ()), outputs=(Tensor("z", "FP32", ()),)),
    make_codec(Signature(kind="json", batch_size_max=ROWS_MAX), config()),
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([2**63, 2**64, -1, 0, 1, 1e39, 10**400, "x", "FP32", "INT64"])
)
KEYS = st.sampled_from(
    [
        "x",
        "y",
        "z",
        "instances",
        "inputs",
        "outputs",
        "name",
        "shape",
        "datatype",
        "data",
        "parameters",
        "binary_data_size",
        "binary_data",
        "id",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=20,
)
PIECES = st.lists(
    st.sampled_from(
        ['{', '}', '[', ']', ',', ':', '"x"', '"y"', '"instances"', '"inputs"', '"', '\\', '\\u', '\\ud800',
         '1', '-', '0', '.5', 'e9', '1e999', 'true', 'null', 'NaN', ' ', '\n', '\ufeff', '\x00', 'é']
    ),
    max_size=30,
)  # fmt: skip
BODIES = (
    st.binary(max_size=60)
    | PIECES.map(lambda pieces: "".join(pieces).encode())
    | VALUES.map(text)
    | VALUES.map(lambda value: text({"inputs": value}))
    | VALUES.map(lambda value: text({"instances": value}))
    | VALUES.map(lambda value: text({"x": value, "y": True}))
)
ITEMS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "y", "q"]),
        "shape": st.lists(st.integers(0, 3) | st.integers(), max_size=3),
        "datatype": st.sampled_from(["FP32", "INT64", "UINT64", "FP16", "BOOL", "BYTES"]),
    },
    optional={
        "data": VALUES | st.lists(st.integers(-2, 2), max_size=6),
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 20)}),
    },
)


def check(read: Any, made: Call) -> None:
    """It either fills the call, consistently, or raises BadRequest of a bounded size."""
    refused: BadRequest | None = None
    try:
        read()
    except BadRequest as error:
        refused = error
    if refused is not None:
        assert refused.status == 400
        assert len(refused.message) + len(refused.hint) < 2_000
    else:
        assert 1 <= made.rows <= ROWS_MAX
        assert all(isinstance(part, bytes) for part in made.payload)


@given(BODIES, st.none() | st.integers(-1, 70))
@example(b"\xef\xbb\xbf1", None)
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused(body: bytes, json_bytes: int | None) -> None:
    for codec in CODECS:
        made = call()
        check(lambda codec=codec, made=made: codec.read_predict(made, body), made)
        made = call()
        check(lambda codec=codec, made=made: codec.read_infer(made, body, json_bytes), made)


@given(st.lists(ITEMS, max_size=3), st.binary(max_size=40), st.booleans())
@settings(max_examples=300)
def test_any_envelope_is_read_or_refused(items: list[Any], blob: bytes, binary: bool) -> None:
    head = text({"inputs": items})
    for codec in CODECS:
        made = call()
        body, json_bytes = (head + blob, len(head)) if binary else (head, None)
        check(lambda codec=codec, made=made, body=body, at=json_bytes: codec.read_infer(made, body, at), made)


@given(VALUES)
def test_a_json_row_that_is_accepted_is_one_that_others_read(value: Any) -> None:
    codec, made = CODECS[-1], call()
    body = text(value)
    try:
        codec.read_predict(made, body)
    except BadRequest:
        return
    assert all(math.isfinite(number) for number in floats_of(json.loads(body)))
    rows = [json.loads(row) for row in made.payload]
    many = isinstance(value, dict) and list(value) == ["instances"] and isinstance(value["instances"], list)
    assert rows == (json.loads(body)["instances"] if many else [json.loads(body)])


def floats_of(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [number for part in parts for number in floats_of(part)]


@pytest.mark.parametrize("dtype", ["FP16", "FP32"])
def test_numpy_and_text_overflow_at_the_same_value(dtype: str) -> None:
    codec = codec_of(Tensor("x", dtype, ()))
    kind = np.dtype(DTYPES[dtype])
    with np.errstate(over="ignore"):
        edge = float(np.finfo(kind).max)
        for step in range(-40, 41):
            value = edge * (1 + step * 2.0**-28) if dtype == "FP32" else edge + step
            finite = bool(np.isfinite(np.array(value).astype(kind)))
            assert accepts(lambda value=value: codec.read_predict(call(), text(value))) == finite
