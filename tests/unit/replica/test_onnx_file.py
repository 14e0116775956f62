"""No file that reaches beyond itself, or is not whole, gets past the check; every good one does."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs here
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from steersman.dataplane.replica import onnx_file
from steersman.dataplane.replica.errors import LoadError


def tensor(name: str = "w") -> TensorProto:
    return onnx.numpy_helper.from_array(np.arange(6, dtype="f4"), name)


def external(location: str, **more: str) -> TensorProto:
    """A tensor that says that its values are elsewhere."""
    made = tensor()
    made.ClearField("raw_data")
    made.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = made.external_data.add()
        entry.key, entry.value = key, value
    return made


def value(name: str, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_initializer(made: TensorProto) -> onnx.ModelProto:
    return model(
        helper.make_graph(
            [helper.make_node("Mul", ["x", "w"], ["y"])],
            "g",
            [value("x", "n", 6)],
            [value("y", "n", 6)],
            [made],
        )
    )


def nested(made: TensorProto) -> onnx.ModelProto:
    """In an attribute of a node of a branch of a branch."""
    graph = helper.make_graph([helper.make_node("Constant", [], ["y"], value=made)], "c", [], [value("y", 6)])
    for _ in range(2):
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "if", [], [value("y", 6)])
    return model(graph)


def in_function(made: TensorProto) -> onnx.ModelProto:
    found = with_initializer(tensor())
    found.functions.append(
        helper.make_function(
            "local", "F", [], ["y"], [helper.make_node("Constant", [], ["y"], value=made)], []
        )
    )
    return found


def sparse(made: TensorProto) -> onnx.ModelProto:
    found = with_initializer(tensor())
    found.graph.sparse_initializer.add().values.CopyFrom(made)
    return found


def training(made: TensorProto) -> onnx.ModelProto:
    found = with_initializer(tensor())
    found.training_info.add().algorithm.initializer.append(made)
    return found


def tensors(made: TensorProto) -> onnx.ModelProto:
    found = with_initializer(tensor())
    found.graph.node[0].attribute.add(name="many").tensors.append(made)
    return found


PLACES = [with_initializer, nested, in_function, sparse, training, tensors]


def check(data: bytes) -> None:
    onnx_file.check(memoryview(data), "m.onnx")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../../etc/passwd", "weights.bin", "*/_ORT_MEM_ADDR_/*", ""],
)
def test_values_outside_of_the_file_are_refused(place: object, location: str) -> None:
    assert callable(place)
    check(place(tensor()).SerializeToString())
    with pytest.raises(LoadError, match="outside of itself"):
        check(place(external(location, offset="0", length="24")).SerializeToString())


def test_either_mark_of_external_values_is_enough() -> None:
    only_flag = tensor()
    only_flag.data_location = TensorProto.EXTERNAL
    only_entry = external("w")
    only_entry.data_location = TensorProto.DEFAULT
    for made in (only_flag, only_entry):
        with pytest.raises(LoadError, match="outside of itself"):
            check(with_initializer(made).SerializeToString())


def test_the_table_has_every_way_to_a_tensor() -> None:
    """Computed from the format's own description, so that a new field of ONNX is noticed."""
    ways: dict[str, dict[int, str]] = {}
    pending = [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        if message.name in ways:
            continue
        ways[message.name] = {}
        for field in message.fields:
            if field.message_type is not None:
                ways[message.name][field.number] = field.message_type.name
                pending.append(field.message_type)
    leading = {"TensorProto"}
    for _ in ways:
        leading |= {name for name, fields in ways.items() if leading & set(fields.values())}
    expected = {name: {n: to for n, to in ways[name].items() if to in leading} for name in leading}

    assert {name: dict(fields) for name, fields in onnx_file.MESSAGES.items()} == expected
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert numbers["external_data"] == onnx_file.EXTERNAL_DATA
    assert numbers["data_location"] == onnx_file.DATA_LOCATION


WHOLE = nested(tensor()).SerializeToString()


@given(st.integers(0, len(WHOLE) - 1))
@settings(max_examples=200)
def test_a_file_cut_short_is_refused_or_a_smaller_whole(length: int) -> None:
    """A cut between two fields of the model itself leaves a message."""
    try:
        check(WHOLE[:length])
    except LoadError:
        return
    onnx.ModelProto.FromString(WHOLE[:length])


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12))
@settings(max_examples=300)
def test_damage_is_refused_or_harmless(place: int, noise: bytes) -> None:
    """Whatever passes and protobuf still reads has no external values."""
    data = WHOLE[:place] + noise + WHOLE[place + len(noise) :]
    try:
        check(data)
    except LoadError:
        return
    try:
        read = onnx.ModelProto.FromString(data)
    except DecodeError:  # protobuf refuses more than the check does
        return
    assert b"external_data" not in repr(read).encode()


@given(st.binary(max_size=300))
def test_noise_is_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(LoadError):
        check(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no graph"),
        (b"\x08\x08", "no graph"),
        (b"\x08\x08\x3a\xff\xff\xff\xff\x07", "cut short"),
        (b"\x08" + b"\xff" * 20, "without an end"),
        (b"\x0b\x0c", "unknown form"),
        (b"\x00\x00", "without a number"),
        (b"\x10\x00\x00\x00ORTM" + bytes(40), "own format"),
    ],
    ids=["empty", "no-graph", "2-GB", "endless-number", "group", "field-0", "ort"],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    with pytest.raises(LoadError, match=why) as raised:
        check(data)
    assert raised.value.lasting
    assert raised.value.hint


def test_graphs_nested_too_deep_are_refused() -> None:
    data = b""
    for _ in range(onnx_file.DEPTH_MAX):  # graph → node → attribute → graph
        for number in (6, 5, 1):
            size = len(data)
            length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
            data = bytes([number << 3 | 2]) + length + data
    size = len(data)
    head = b"\x08\x08\x3a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    with pytest.raises(LoadError, match="nested deeper"):
        check(head + data)


def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(onnx_file.MODEL_BYTES_MAX + 1)  # takes no room on the disk
    cases = {
        "pipe": "not a regular file",
        ".": "not a regular file",
        "/dev/zero": "not a regular file",
        "empty": "is empty",
        "big": "the most is",
        "loop": "cannot be opened",
        "none": "cannot be opened",
        "n\0ne": "cannot be opened",
    }
    for name, why in cases.items():
        with (
            pytest.raises(LoadError, match=why),
            onnx_file.opened(f"{tmp_path}/{name}" if name[0] != "/" else name),
        ):
            raise AssertionError(name)


def test_an_opened_file_is_reached_whatever_becomes_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(WHOLE)
    with onnx_file.opened(str(path)) as file:
        path.unlink()
        path.write_bytes(b"another")
        assert Path(file.path).read_bytes() == WHOLE
        assert file.size_bytes == len(WHOLE)
        assert file.digest.startswith("sha256:")
