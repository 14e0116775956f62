"""Bodies made to hurt, and models that cannot be served. Each is refused, whatever the codec."""

import struct
from collections.abc import Callable

import pytest
from tests.unit.gateway.codec_rig import (
    LABELS,
    answer,
    call,
    config,
    infer,
    json_codec,
    predict,
    refused_infer,
    refused_predict,
    small,
    tensor_codec,
)

from steersman.dataplane.gateway.codec.codec import BadRequest, Codec, make_codec
from steersman.dataplane.gateway.codec.json_rows import DEPTH_MAX
from steersman.dataplane.gateway.signature import Signature, Tensor
from steersman.model.service import InputRange

CODECS: dict[str, Callable[[], Codec]] = {
    "row": lambda: tensor_codec(Tensor("x", "FP32", (3,))),
    "ragged": lambda: tensor_codec(Tensor("x", "INT64", (None, None))),
    "scalar": lambda: tensor_codec(Tensor("x", "UINT64", ())),
    "two": lambda: tensor_codec(Tensor("a", "FP16", (2,)), Tensor("b", "BOOL", ())),
    "json": json_codec,
}
ATTACKS = {
    "empty": b"",
    "blank": b" \n\t ",
    "depth of lists": b"[" * 100_000,
    "depth, closed": b"[" * 100_000 + b"]" * 100_000,
    "depth of objects": b'{"x":' * 100_000,
    "depth in instances": b'{"instances":' + b"[" * 100_000,
    "long integer": b"1" * 10**7,
    "long integer in a list": b"[" + b"1" * 10**7 + b"]",
    "long integer in instances": b'{"instances":[[' + b"1" * 10**7 + b"]]}",
    "long negative": b"-" + b"9" * 10**7,
    "long exponent": b"1e" + b"9" * 10**6,
    "number beyond doubles": b"[1e999,1,1]",
    "NaN": b"NaN",
    "Infinity": b"[Infinity,1,1]",
    "lone surrogate": b'"\\ud800"',
    "lone low surrogate": b'["\\udc00"]',
    "surrogate as a name": b'{"\\ud800":1}',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "not UTF-8": b'{"\xff":1}',
    "byte order mark": b"\xef\xbb\xbf[1,2,3]",
    "UTF-16": "[1,2,3]".encode("utf-16"),
    "trailing garbage": b"[1,2,3]x",
    "two values": b"[1,2,3][1,2,3]",
    "truncated": b"[1,2,3",
    "comment": b"[1,2,3]//",
    "trailing comma": b"[1,2,3,]",
    "single quotes": b"{'x':1}",
    "NUL": b"[1,2,3]\x00",
    "leading zero": b"[01,2,3]",
    "hexadecimal": b"[0x1,2,3]",
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(codec: str, attack: str) -> None:
    made = CODECS[codec]()
    refused_predict(made, ATTACKS[attack])
    with pytest.raises(BadRequest) as caught:
        made.read_infer(call(), ATTACKS[attack], None)
    small(caught.value)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_inside_infer_data_is_refused(attack: str) -> None:
    if ATTACKS[attack].strip() and attack != "NUL":
        body = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":' + ATTACKS[attack] + b"}]}"
        with pytest.raises(BadRequest) as caught:
            CODECS["row"]().read_infer(call(), body, None)
        small(caught.value)


def test_prototype_keys_are_names_like_any() -> None:
    assert "no input '__proto__'" in refused_predict(CODECS["row"](), {"__proto__": [1, 2, 3]}).message


def test_a_json_row_travels_as_it_was_written() -> None:
    codec = json_codec()
    text = b'{ "q" : [1.50, "\\u00e9\xc3\xa9", {"q":1,"q":2}] , "instances": [1] }'
    made = predict(codec, b"\n" + text + b" ")
    assert (made.rows, made.payload, made.shapes) == (1, [text], ())
    made = predict(codec, b'{ "instances" : [ 1.50, {"a": "]}"} ,"x\\"" ] }')
    assert (made.rows, made.payload) == (3, [b"1.50", b'{"a": "]}"}', b'"x\\""'])
    made = predict(codec, b'{"instances": 5}')
    assert made.payload == [b'{"instances": 5}']


def test_json_answers() -> None:
    codec = json_codec()
    reply = answer()
    reply.outputs = [b'{"a":1.50}']
    assert codec.write_predict(predict(codec, b"1"), reply) == b'{"a":1.50}'
    reply.outputs = [b"1", b"null"]
    assert codec.write_predict(predict(codec, b'{"instances":[1,2]}'), reply) == b'{"predictions":[1,null]}'


def test_json_instances_have_their_limits() -> None:
    assert refused_predict(json_codec(rows=2), {"instances": [1, 2, 3]}).hint == "send fewer instances"
    assert "no row" in refused_predict(json_codec(), {"instances": []}).message
    assert "twice" in refused_predict(json_codec(), b'{"instances":[1],"instances":[2]}').message
    assert "twice" in refused_predict(json_codec(), b'{"instances":[1],"inst\\u0061nces":[2]}').message


def test_a_stream_is_one_row() -> None:
    codec = json_codec(stream=True)
    assert predict(codec, {"instances": [1]}).rows == 1
    assert refused_predict(codec, {"instances": [1, 2]}).hint == "send fewer instances"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_may_be_deep_up_to_a_limit(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"

    def deep(depth: int) -> bytes:
        return opening * depth + b"1" + closing * depth if opening != b"[" else b"[" * depth + b"]" * depth

    assert predict(json_codec(), deep(DEPTH_MAX)).rows == 1
    assert "nested more than" in refused_predict(json_codec(), deep(DEPTH_MAX + 1)).message


def test_brackets_in_texts_and_in_width_are_not_depth() -> None:
    predict(json_codec(), b'["' + b'[{\\\\\\"' * 1_000 + b'"]')
    predict(json_codec(), b"[" + b",".join([b"[]", b"{}"] * 1_000) + b"]")


@pytest.mark.parametrize(
    ("signature", "ranges", "said"),
    [
        (Signature(kind="tensor", inputs=(Tensor("t", "BYTES", ()),)), (), "'t' of BYTES"),
        (
            Signature(kind="tensor", inputs=(Tensor("t", "FP32", ()),), outputs=(Tensor("o", "BF16", ()),)),
            (),
            "BF16",
        ),
        (Signature(kind="tensor", inputs=(Tensor('a"b', "FP32", ()),)), (), "named"),
        (Signature(kind="tensor"), (), "no input"),
        (
            Signature(kind="tensor", inputs=(Tensor("t", "FP32", ()), Tensor("t", "FP32", ()))),
            (),
            "two of one name",
        ),
        (
            Signature(kind="tensor", inputs=(Tensor("t", "FP32", ()),)),
            (InputRange(name="T"),),
            "range is declared",
        ),
        (Signature(kind="json"), (InputRange(name="t"),), "range is declared"),
    ],
)
def test_what_cannot_be_kept_is_refused_for_every_request(
    signature: Signature, ranges: tuple[InputRange, ...], said: str
) -> None:
    codec = make_codec(signature, config(*ranges))
    uses: list[Callable[[], object]] = [
        lambda: codec.read_predict(call(), b"[1]"),
        lambda: codec.read_infer(call(), b"{}", None),
        lambda: codec.write_predict(call(), answer()),
        lambda: codec.write_infer(call(), answer()),
    ]
    for use in uses:
        with pytest.raises(BadRequest) as caught:
            use()
        assert caught.value.status == 501
        assert said in caught.value.message
    assert b'"platform":"steersman"' in codec.metadata("m", [1])


def test_the_lower_of_both_batch_limits_holds() -> None:
    signature = Signature(kind="tensor", inputs=(Tensor("x", "INT8", ()),), outputs=LABELS, batch_size_max=2)
    codec = make_codec(signature, config(rows=8))
    assert predict(codec, {"instances": [1, 2]}).rows == 2
    refused_predict(codec, {"instances": [1, 2, 3]})
    three = {"name": "x", "shape": [3], "datatype": "INT8", "data": [1, 2, 3]}
    refused_infer(codec, {"inputs": [three]})


def test_a_range_that_the_decoder_cannot_check_is_checked() -> None:
    codec = tensor_codec(Tensor("x", "UINT64", (1,)), ranges=(InputRange(name="x", minimum=2.0**63),))
    predict(codec, [2**63])
    assert "below the least" in refused_predict(codec, [2**63 - 1]).message
    blob = struct.pack("<Q", 2**63 - 1)
    request = {
        "inputs": [
            {"name": "x", "shape": [1, 1], "datatype": "UINT64", "parameters": {"binary_data_size": 8}}
        ]
    }
    assert "below the least" in refused_infer(codec, request, blob).message
    assert infer(codec, request, b"\xff" * 8).rows == 1


def test_a_range_outside_of_the_dtype_accepts_nothing() -> None:
    for dtype, minimum in (("UINT8", 300.0), ("FP32", 1e39), ("FP16", 1e6)):
        codec = tensor_codec(Tensor("x", dtype, ()), ranges=(InputRange(name="x", minimum=minimum),))
        for value in (0, 255, 60_000, 3e38):
            refused_predict(codec, value)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"[[],{}],", b'"[",[],'])
def test_depth_of_many_brackets_is_counted_exactly(unit: bytes) -> None:
    wide = b"[" + unit * 5_000 + b"0]"
    around = DEPTH_MAX - (2 if b"[[" in unit else 1) - 1
    predict(json_codec(), b"[" * around + wide + b"]" * around)
    error = refused_predict(json_codec(), b"[" * (around + 1) + wide + b"]" * (around + 1))
    assert "nested more than" in error.message
    tower = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    predict(json_codec(), tower)
    refused_predict(json_codec(), b"[" + b",".join([tower] * 100) + b"]")


@pytest.mark.parametrize(
    "number",
    [b"1e308", b"-1E+308", b"1e-400", b"9" * 300, b'"1e999"', b'"' + b"9" * 9_000 + b'"', b"0." + b"1" * 900],
)
def test_large_numbers_that_every_reader_takes(number: bytes) -> None:
    assert predict(json_codec(), b"[" + number + b"]").payload == [b"[" + number + b"]"]


@pytest.mark.parametrize(
    "number", [b"1e309", b"-1E+309", b"9" * 199 + b"e200", b"9" * 5_000, b"9" * 400 + b".5", b"1e0000999"]
)
def test_large_numbers_that_some_reader_does_not_take(number: bytes) -> None:
    assert "out of range" in refused_predict(json_codec(), b"[" + number + b"]").message


def test_a_row_with_other_keys_beside_instances_is_one_row() -> None:
    for body in (b'{"instances":[1],"a":2}', b'{"a":2,"instances":[1]}', b'{"instances":{"a":[1]}}'):
        made = predict(json_codec(), body)
        assert (made.rows, made.payload) == (1, [body])
