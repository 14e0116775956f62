"""``/predict`` of tensor models: every accepted form, and what is said of those refused."""

import json
import struct
from typing import Any

import pytest
from tests.unit.gateway.codec_rig import answer, predict, refused_predict, tensor_codec

from steersman.dataplane.gateway.call import Answer
from steersman.dataplane.gateway.signature import Tensor
from steersman.model.service import InputRange

X = Tensor("x", "FP32", (3,))
ROW = struct.pack("<3f", 1, 2.5, -3)


@pytest.mark.parametrize(
    "body",
    [
        b"[1, 2.5, -3]",
        b' \n{"x": [1,2.5,-3]}\t',
        b'{"x":[1,2.5,-3]}',
        b"\t[1,2.5,-3]",
        b'{"\\u0078":[1,2.5,-3]}',
    ],
)
def test_one_row_of_a_single_input_bare_or_by_name(body: bytes) -> None:
    codec = tensor_codec(X)
    call = predict(codec, body)
    assert (call.rows, call.payload, call.shapes) == (1, [ROW], ((3,),))
    assert codec.write_predict(call, answer()) == b'{"label":7,"scores":[0.5,0.25]}'


@pytest.mark.parametrize(
    "body", [{"instances": [[1, 2.5, -3], [0, 0, 0]]}, {"instances": [{"x": [1, 2.5, -3]}, [0, 0, 0]]}]
)
def test_many_rows(body: Any) -> None:
    codec = tensor_codec(X)
    call = predict(codec, body)
    assert (call.rows, call.payload, call.shapes) == (2, [ROW + bytes(12)], ((3,),))
    assert json.loads(codec.write_predict(call, answer(2))) == {
        "predictions": [{"label": 7, "scores": [0.5, 0.25]}, {"label": 8, "scores": [0.5, 0.25]}]
    }


def test_one_instance_is_answered_as_many() -> None:
    codec = tensor_codec(X)
    call = predict(codec, {"instances": [[1, 2.5, -3]]})
    assert codec.write_predict(call, answer()).startswith(b'{"predictions":[{')


def test_several_inputs_in_any_order() -> None:
    codec = tensor_codec(Tensor("a", "INT8", (2, 2)), Tensor("b", "BOOL", ()))
    call = predict(codec, {"b": True, "a": [[1, 2], [3, -4]]})
    assert call.payload == [b"\x01\x02\x03\xfc", b"\x01"]
    assert call.shapes == ((2, 2), ())
    many = predict(
        codec, {"instances": [{"a": [[1, 2], [3, 4]], "b": False}, {"b": True, "a": [[5, 6], [7, 8]]}]}
    )
    assert many.payload == [bytes(range(1, 9)), b"\x00\x01"]


def test_a_call_read_before_is_filled_anew() -> None:
    codec = tensor_codec(X)
    call = predict(codec, {"instances": [[1, 2, 3]] * 3})
    codec.read_predict(call, b"[1,2.5,-3]")
    assert (call.rows, call.payload) == (1, [ROW])


def test_dims_of_any_size_are_measured() -> None:
    codec = tensor_codec(Tensor("ids", "INT64", (None,)), Tensor("grid", "UINT8", (None, 2, None)))
    call = predict(codec, {"ids": [1, 2, 3], "grid": [[[1], [2]]]})
    assert call.shapes == ((3,), (1, 2, 1))
    assert call.payload == [struct.pack("<3q", 1, 2, 3), b"\x01\x02"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"ids": [1], "grid": [[[1], [2, 3]]]}, "[0][0][1]"),
        ({"ids": [1], "grid": [[[1, 2], [3, 4]], [[1, 2], [3]]]}, "[0][1][1]"),
        ({"instances": [{"ids": [1], "grid": [[[1], [2]]]}, {"ids": [1, 2], "grid": [[[1], [2]]]}]}, "[1]"),
    ],
)
def test_ragged_rows_are_refused_where_they_differ(body: Any, path: str) -> None:
    codec = tensor_codec(Tensor("ids", "INT64", (None,)), Tensor("grid", "UINT8", (None, 2, None)))
    error = refused_predict(codec, body)
    assert f"list at {path} has" in error.message
    assert "pad the rows" in error.hint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[1,2]", "input 'x': expected at least 3 values"),
        (b"[1,2,3,4]", "input 'x': expected at most 3 values"),
        (b'[1,"2",3]', "input 'x' at [1]: expected float, got str"),
        (b"[1,true,3]", "input 'x' at [1]: expected float, got bool"),
        (b"[1,null,3]", "input 'x' at [1]: expected float, got null"),
        (b"[[1,2,3]]", "input 'x' at [0]: expected float, got array"),
        (b'{"x":[1,2,"3"]}', "input 'x' at x[2]: expected float, got str"),
        (b'{"instances":[[1,2,3],[1,2,"3"]]}', "input 'x' at instances[1][2]: expected float, got str"),
        (b"7", "input 'x': expected array, got int"),
        (b"{}", "input 'x' is missing"),
        (b'{"instances":[{}]}', "input 'x' is missing in instances[0]"),
        (b'{"instances":[]}', "there is no row"),
        (b'{"instances":{"x":[1,2,3]}}', "expected array, got object"),
        (b'{"x":[1,2,3],"instances":[]}', "'instances' does not stand beside other names"),
        (b'{"instances":[],"x":[1,2,3]}', "'instances' does not stand beside other names"),
        (b"[NaN,1,2]", "not JSON"),
        (b"[1,2,Infinity]", "not JSON"),
        (b"[1,2,1e400]", "out of range"),
        (b"[1,2,1e39]", "input 'x' at [2]: the value is above the largest accepted"),
        (b"[1,2,-3.5e38]", "input 'x' at [2]: the value is below the least accepted"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(body: bytes, said: str) -> None:
    error = refused_predict(tensor_codec(X), body)
    assert said in error.message


def test_an_error_names_the_input_among_several() -> None:
    codec = tensor_codec(Tensor("a", "FP32", (2,)), Tensor("a.b", "INT8", (2,)))
    assert "input 'a.b' at a.b[1]" in refused_predict(codec, {"a": [1, 2], "a.b": [1, 200]}).message
    error = refused_predict(codec, {"instances": [{"a": [1, "q"], "a.b": [1, 2]}]})
    assert "input 'a' at instances[0].a[1]" in error.message
    assert error.hint == "'a' takes FP32 of shape [2]"
    assert refused_predict(codec, b"[1,2]").hint == "send an object with 'a', 'a.b'"


def test_an_unknown_name_is_refused_with_the_nearest_and_cut() -> None:
    codec = tensor_codec(Tensor("pixels", "FP32", (3,)))
    error = refused_predict(codec, {"pixles": [1, 2, 3]})
    assert (error.message, error.hint) == ("there is no input 'pixles'", "did you mean 'pixels'?")
    refused_predict(codec, {"q" * 100_000: 1})


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":[9,9,9],"x":[1,2,3]}',
        b'{"\\u0078":[9,9,9],"x":[1,2,3]}',
        b'{"instances":[[9,9,9]],"instances":[[1,2,3]]}',
        b'{"instances":[{"x":[1,2,3]},{"x":[1,2,3],"x":[1,2,3]}]}',
    ],
)
def test_a_name_that_stands_twice_is_refused(body: bytes) -> None:
    assert "twice" in refused_predict(tensor_codec(X), body).message


def test_a_name_twice_among_several_inputs() -> None:
    codec = tensor_codec(X, Tensor("y", "INT8", ()))
    assert "twice" in refused_predict(codec, b'{"x":[1,2,3],"y":1,"y":2}').message


def test_an_input_called_instances_is_given_in_instances() -> None:
    codec = tensor_codec(Tensor("instances", "INT8", (2,)))
    assert predict(codec, {"instances": [[1, 2], [3, 4]]}).rows == 2
    assert predict(codec, {"instances": [{"instances": [1, 2]}]}).payload == [b"\x01\x02"]
    assert predict(codec, [1, 2]).payload == [b"\x01\x02"]


def test_more_rows_than_a_batch_holds_are_refused() -> None:
    codec = tensor_codec(X, rows=4)
    assert predict(codec, {"instances": [[1, 2, 3]] * 4}).rows == 4
    error = refused_predict(codec, {"instances": [[1, 2, 3]] * 5})
    assert error.hint == "send fewer instances"


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("UINT8", [0, 255], [-1, 256, 1.0, True]),
        ("INT8", [-128, 127], [-129, 128]),
        ("UINT16", [0, 65535], [-1, 65536]),
        ("INT16", [-32768, 32767], [-32769, 32768]),
        ("UINT32", [0, 2**32 - 1], [-1, 2**32]),
        ("INT32", [-(2**31), 2**31 - 1], [-(2**31) - 1, 2**31]),
        ("UINT64", [0, 2**63, 2**64 - 1], [-1, 2**64, 10**30]),
        ("INT64", [-(2**63), 2**63 - 1], [-(2**63) - 1, 2**63, 10**30]),
        ("FP16", [65504, 65519.9, -65504, 5], [65520, -65520, 1e39]),
        ("FP32", [3.4028235e38, -3.4028235e38, 2**70], [3.4028236e38, 1e39, -1e39]),
        ("FP64", [1.7976931348623157e308], [True]),
        ("BOOL", [True, False], [0, 1, "true", None]),
    ],
)
def test_bounds_of_every_dtype(dtype: str, good: list[Any], bad: list[Any]) -> None:
    codec = tensor_codec(Tensor("x", dtype, (1,)))
    for value in good:
        predict(codec, [value])
    for value in bad:
        refused_predict(codec, [value])
        refused_predict(codec, {"x": [value]})
        refused_predict(codec, {"instances": [[value]]})


@pytest.mark.parametrize("dtype", ["FP32", "FP64", "FP16", "INT32", "UINT64"])
def test_a_declared_range_holds_in_every_form(dtype: str) -> None:
    codec = tensor_codec(
        Tensor("x", dtype, (1,)), ranges=(InputRange(name="x", minimum=-0.0, maximum=100.0),)
    )
    predict(codec, [0])
    predict(codec, [100])
    for value in (-1, 101):
        assert "accepted" in refused_predict(codec, [value]).message
    assert refused_predict(codec, [101]).hint.endswith("at least -0, at most 100")


def test_a_range_is_read_in_the_precision_of_its_input() -> None:
    codec = tensor_codec(Tensor("x", "FP32", (1,)), ranges=(InputRange(name="x", maximum=0.7),))
    predict(codec, [0.7])
    predict(codec, [0.70000001])  # the same FP32
    refused_predict(codec, [0.7000001])


def test_outputs_of_any_shape_are_nested() -> None:
    outputs = (Tensor("m", "INT8", (2, 2)), Tensor("v", "BOOL", (None,)), Tensor("e", "FP32", (2, 0)))
    codec = tensor_codec(X, outputs=outputs)
    call = predict(codec, [1, 2, 3])
    parts = [((2, 2), b"\x01\x02\x03\x04"), ((3,), b"\x01\x00\x01"), ((2, 0), b"")]
    assert json.loads(codec.write_predict(call, Answer("ok", parts))) == {
        "m": [[1, 2], [3, 4]],
        "v": [True, False, True],
        "e": [[], []],
    }


def test_metadata_has_the_batch_dim_first() -> None:
    codec = tensor_codec(Tensor("x", "FP32", (None, 3)))
    assert json.loads(codec.metadata("m", [2, 3])) == {
        "name": "m",
        "versions": ["2", "3"],
        "platform": "steersman",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1, 3]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }
