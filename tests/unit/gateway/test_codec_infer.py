"""The Open Inference Protocol: what it accepts, what it answers, and the lies it does not believe."""

import json
import struct
from typing import Any

import pytest
from tests.unit.gateway.codec_rig import answer, call, infer, json_codec, refused_infer, tensor_codec

from steersman.dataplane.gateway.call import Call
from steersman.dataplane.gateway.codec.codec import BadRequest
from steersman.dataplane.gateway.signature import Tensor
from steersman.model.service import InputRange

X = Tensor("x", "FP32", (3,))
ROWS = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


def item(**changes: Any) -> dict[str, Any]:
    made = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6], **changes}
    return {key: value for key, value in made.items() if value is not ...}


def binary(size: int, **changes: Any) -> dict[str, Any]:
    return item(data=..., parameters={"binary_data_size": size}, **changes)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_data_flat_or_nested(data: Any) -> None:
    made = infer(tensor_codec(X), {"inputs": [item(data=data)]})
    assert (made.rows, made.payload, made.shapes) == (2, [ROWS], ((3,),))


def test_the_answer_in_json() -> None:
    codec = tensor_codec(X)
    made = infer(codec, {"id": "a-1 é", "inputs": [item()], "parameters": {"priority": 3}})
    text, json_bytes = codec.write_infer(made, answer(2))
    assert json_bytes is None
    assert json.loads(text) == {
        "model_name": "m",
        "id": "a-1 é",
        "outputs": [
            {"name": "label", "shape": [2], "datatype": "INT64", "data": [7, 8]},
            {"name": "scores", "shape": [2, 2], "datatype": "FP32", "data": [0.5, 0.25, 0.5, 0.25]},
        ],
    }


def split(pair: tuple[bytes, int | None]) -> tuple[Any, bytes]:
    body, json_bytes = pair
    assert json_bytes is not None
    return json.loads(body[:json_bytes]), body[json_bytes:]


def test_binary_in_and_out() -> None:
    codec = tensor_codec(X, Tensor("k", "UINT8", ()))
    inputs = [
        binary(24),
        {"name": "k", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}},
    ]
    made = infer(
        codec, {"inputs": inputs[::-1], "parameters": {"binary_data_output": True}}, b"\x05\x06", ROWS
    )
    assert made.payload == [ROWS, b"\x05\x06"]
    head, tail = split(codec.write_infer(made, answer(2)))
    assert [one["parameters"] for one in head["outputs"]] == [
        {"binary_data_size": 16},
        {"binary_data_size": 16},
    ]
    assert tail == struct.pack("<2q4f", 7, 8, 0.5, 0.25, 0.5, 0.25)


def test_outputs_chosen_and_each_in_its_form() -> None:
    codec = tensor_codec(X)
    wanted = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}]
    made = infer(codec, {"inputs": [item()], "outputs": wanted})
    head, tail = split(codec.write_infer(made, answer(2)))
    assert [one["name"] for one in head["outputs"]] == ["scores", "label"]
    assert head["outputs"][1]["data"] == [7, 8]
    assert tail == struct.pack("<4f", 0.5, 0.25, 0.5, 0.25)
    own = {"inputs": [item()], "outputs": [{"name": "label", "parameters": {"binary_data": False}}]}
    made = infer(codec, {**own, "parameters": {"binary_data_output": True}})
    assert codec.write_infer(made, answer(2))[1] is None


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"inputs": [item(datatype="FP64")]}, "datatype is 'FP64', expected FP32"),
        ({"inputs": [item(datatype="BYTES", data=["a"] * 6)]}, "BYTES (texts) are not served"),
        ({"inputs": [item(shape=[3])]}, "shape does not fit"),
        ({"inputs": [item(shape=[2, 4])]}, "shape does not fit"),
        ({"inputs": [item(shape=[2, 3, 1])]}, "shape does not fit"),
        ({"inputs": [item(shape=[-2, 3])]}, "shape[0]"),
        ({"inputs": [item(shape=[2.0, 3])]}, "shape[0]"),
        ({"inputs": [item(shape=[0, 3], data=[])]}, "no row"),
        ({"inputs": [item(shape=[9, 3], data=[1] * 27)]}, "9 rows are more than the 8"),
        ({"inputs": [item(shape=[2**62, 3])]}, "rows are more than"),
        ({"inputs": [item(data=[1, 2, 3])]}, "3 values of data are not"),
        ({"inputs": [item(data=[[1, 2, 3]])]}, "1 rows of data are not"),
        ({"inputs": [item(data=[[1, 2], [3, 4]])]}, "'x' at data[0]: expected at least 3 values"),
        ({"inputs": [item(data=[1, 2, 3, 4, 5, "6"])]}, "'x' at data[5]: expected float, got str"),
        ({"inputs": [item(data=[1, 2, 3, 4, 5, 1e39])]}, "'x' at data[5]: the value is above"),
        ({"inputs": [item(data=...)]}, "neither data nor"),
        ({"inputs": [item(), item()]}, "given twice"),
        ({"inputs": []}, "missing: input 'x'"),
        ({"inputs": [item(name="X1")]}, "no input 'X1'"),
        ({}, "missing required field inputs"),
        ({"inputs": [item()], "ouputs": []}, "no key 'ouputs'"),
        ({"inputs": [item(dtype="FP32")]}, "no key 'dtype'"),
        ({"inputs": [item()], "outputs": [{"name": "label"}, {"name": "label"}]}, "asked for twice"),
        ({"inputs": [item()], "outputs": [{"name": "lable"}]}, "no output 'lable'"),
        ({"inputs": [item()], "id": "a\nb"}, "printable"),
        ({"inputs": [item()], "id": "a" * 257}, "printable"),
        ({"inputs": [item()], "id": 7}, "at id: expected str | null"),
        ({"inputs": [item(parameters={"binary_data_size": 24}, data=...)]}, "without binary data"),
        ({"inputs": [item(parameters={"shared_memory_region": "r"})]}, "shared_memory_region"),
        (
            {"inputs": [item()], "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
            "classification",
        ),
        ([], "expected object, got array"),
    ],
)
def test_what_is_refused_and_why(request_: Any, said: str) -> None:
    assert said in refused_infer(tensor_codec(X), request_).message


def test_a_misspelt_key_gets_the_nearest() -> None:
    error = refused_infer(tensor_codec(X), {"inputs": [item()], "ouputs": []})
    assert error.hint == "did you mean 'outputs'?"


@pytest.mark.parametrize(
    ("request_", "blob", "said"),
    [
        ({"inputs": [binary(23)]}, ROWS[:23], "23 bytes of data are not"),
        ({"inputs": [binary(28)]}, ROWS + b"1234", "28 bytes of data are not"),
        ({"inputs": [binary(25)]}, ROWS, "more than the body has left"),
        ({"inputs": [binary(2**63)]}, ROWS, "more than the body has left"),
        ({"inputs": [binary(24)]}, ROWS + b"?", "1 bytes after the JSON belong to no input"),
        ({"inputs": [item()]}, b"?", "1 bytes after the JSON belong to no input"),
        ({"inputs": [binary(-1)]}, ROWS, "binary_data_size"),
        ({"inputs": [item(parameters={"binary_data_size": 24})]}, ROWS, "both data and binary_data_size"),
        ({"inputs": [binary(24, shape=[2, 2**62])]}, ROWS, "shape does not fit"),
    ],
)
def test_sizes_that_lie(request_: Any, blob: bytes, said: str) -> None:
    assert said in refused_infer(tensor_codec(X), request_, blob).message


def test_a_product_beyond_64_bits_is_counted_not_wrapped() -> None:
    codec = tensor_codec(Tensor("x", "FP32", (None, None)))
    for shape in ([2, 2**32, 2**32], [4, 2**31, 2**31], [1, 2**62, 4]):
        assert "24 bytes of data" in refused_infer(codec, {"inputs": [binary(24, shape=shape)]}, ROWS).message


@pytest.mark.parametrize("json_bytes", [0, -1, 10**9])
def test_a_header_length_beyond_the_body(json_bytes: int) -> None:
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        tensor_codec(X).read_infer(call(), b"{}", json_bytes)


def test_a_header_length_that_cuts_the_json_short() -> None:
    text = json.dumps({"inputs": [item()]}).encode()
    with pytest.raises(BadRequest, match="not JSON"):
        tensor_codec(X).read_infer(call(), text, len(text) - 1)


@pytest.mark.parametrize(("dtype", "code"), [("FP16", "e"), ("FP32", "f"), ("FP64", "d")])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 500, 999])
def test_binary_floats_that_are_not_finite(dtype: str, code: str, value: float, place: int) -> None:
    codec = tensor_codec(Tensor("x", dtype, (1_000,)))
    values = [1.5] * 1_000
    values[place] = value
    blob = struct.pack(f"<1000{code}", *values)
    request = {"inputs": [binary(len(blob), shape=[1, 1_000], datatype=dtype)]}
    assert "NaN or infinite" in refused_infer(codec, request, blob).message


@pytest.mark.parametrize(
    ("dtype", "code", "largest"), [("FP16", "e", 65504), ("FP32", "f", 3.4028234e38), ("FP64", "d", 1.79e308)]
)
def test_the_largest_floats_are_finite(dtype: str, code: str, largest: float) -> None:
    blob = struct.pack(f"<2{code}", largest, -largest)
    request = {"inputs": [binary(len(blob), shape=[1, 2], datatype=dtype)]}
    assert infer(tensor_codec(Tensor("x", dtype, (2,))), request, blob).payload == [blob]


def test_binary_bools_are_zero_or_one() -> None:
    codec = tensor_codec(Tensor("x", "BOOL", (3,)))
    request = {"inputs": [binary(3, shape=[1, 3], datatype="BOOL")]}
    assert infer(codec, request, b"\x01\x00\x01").payload == [b"\x01\x00\x01"]
    assert "neither 0 nor 1" in refused_infer(codec, request, b"\x01\x00\x02").message


def test_binary_values_keep_the_declared_range() -> None:
    codec = tensor_codec(X, ranges=(InputRange(name="x", minimum=0.1, maximum=0.7),))
    request = {"inputs": [binary(12, shape=[1, 3])]}
    infer(codec, request, struct.pack("<3f", 0.1, 0.5, 0.7))  # neither bound is an FP32
    for low, high in ((0.0999, 0.5), (0.5, 0.7001)):
        assert "accepted" in refused_infer(codec, request, struct.pack("<3f", 0.5, low, high)).message


def test_inputs_must_have_equal_rows() -> None:
    codec = tensor_codec(X, Tensor("k", "UINT8", ()))
    other = {"name": "k", "shape": [1], "datatype": "UINT8", "data": [1]}
    assert "differ in their first dim" in refused_infer(codec, {"inputs": [item(), other]}).message


def test_nested_data_must_have_the_shape_it_claims() -> None:
    codec = tensor_codec(Tensor("x", "FP32", (None,)))
    assert "not of the shape" in refused_infer(codec, {"inputs": [item(data=[[1, 2], [3, 4]])]}).message
    assert "has 1 items" in refused_infer(codec, {"inputs": [item(data=[[1, 2, 3], [4]])]}).message


def test_a_refused_call_is_as_it_was() -> None:
    codec, made = tensor_codec(X), Call(lambda *_: None)
    codec.read_predict(made, b"[1,2,3]")
    before = (made.rows, made.payload, made.shapes, made.context)
    for body in (b"[1,2]", b'{"instances":[[1,2,3],[1]]}'):
        with pytest.raises(BadRequest):
            codec.read_predict(made, body)
    with pytest.raises(BadRequest):
        codec.read_infer(made, json.dumps({"inputs": [item(data=[1])]}).encode(), None)
    assert (made.rows, made.payload, made.shapes, made.context) == before


def test_a_json_service_is_not_served_here() -> None:
    error = refused_infer(json_codec(), {"inputs": [item()]})
    assert "/predict/" in error.hint
