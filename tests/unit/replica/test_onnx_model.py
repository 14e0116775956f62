"""Which models are refused, with which words, and what the served ones answer."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.serving.replica_scene import FLOAT, INT64, graph_model, logistic, weights

from steersman.dataplane.replica import onnx_model
from steersman.dataplane.replica.errors import BatchError, LoadError
from steersman.dataplane.replica.settings import Settings
from steersman.ports import replica_wire as wire


def load(folder: Path, model: onnx.ModelProto, rows_max: int = 8) -> onnx_model.OnnxModel:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    settings = Settings("", "", "", "s", 1, "onnx", "", str(path), 1, rows_max, 1000, 1000)
    return onnx_model.load(settings)[0]


def frame(model: onnx_model.OnnxModel, *arrays: np.ndarray[Any, Any]) -> wire.Frame:
    names = [tensor["name"] for tensor in model.signature.inputs]
    shapes = {name: list(arrays[place].shape[1:]) for place, name in enumerate(names)}
    payload = b"".join(array.tobytes() for array in arrays)
    return wire.Frame(wire.INFER, len(arrays[0]), 1, {"shapes": shapes}, memoryview(bytearray(payload)))


X: Any = ("x", FLOAT, ["n", 2])
Y: Any = ("y", FLOAT, ["n", 2])


def one(op: str, given: Any = X, out: Any = Y, **more: Any) -> onnx.ModelProto:
    return graph_model([helper.make_node(op, ["x"], ["y"], **more)], [given], [out])


def zipmap() -> onnx.ModelProto:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    out = onnx.ValueInfoProto(name="y")
    out.type.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
    out.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = FLOAT
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", FLOAT, ["n", 2])], [out])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def custom() -> onnx.ModelProto:
    model = one("Evil", domain="com.example")
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def baked_batch() -> onnx.ModelProto:
    """Says that its batch is free, and reshapes to one row."""
    shape = weights("s", np.array([1, 2], "i8"))
    return graph_model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [("x", FLOAT, ["n", 2])],
        [("y", FLOAT, ["n", 2])],
        [shape],
    )


def transposed() -> onnx.ModelProto:
    return one("Transpose", out=("y", FLOAT, [2, "n"]), perm=[1, 0])


REFUSED = {
    "text": (
        one("Identity", ("x", TensorProto.STRING, ["n"]), ("y", TensorProto.STRING, ["n"])),
        "string",
        "encode",
    ),
    "zipmap": (zipmap(), "seq", "zipmap=False"),
    "fixed-batch": (one("Neg", ("x", FLOAT, [7, 2]), ("y", FLOAT, [7, 2])), "exactly 7 rows", "dynamic_axes"),
    "scalar": (one("Neg", ("x", FLOAT, []), ("y", FLOAT, [])), "no batch dimension", "free"),
    "no-input": (
        graph_model(
            [helper.make_node("Constant", [], ["y"], value=weights("w", np.ones(2, "f4")))],
            [],
            [("y", FLOAT, [2])],
        ),
        "no input",
        "answers",
    ),
    "custom": (custom(), "refuses", "custom operators"),
    "baked-batch": (baked_batch(), "one row, but not 8", "batch dimension"),
    "transposed": (transposed(), "wrongly", "batch dimension"),
    "scalar-output": (one("ReduceSum", out=("y", FLOAT, []), keepdims=0), "batch|wrongly", ""),
    "bfloat": (
        one("Identity", ("x", TensorProto.BFLOAT16, ["n"]), ("y", TensorProto.BFLOAT16, ["n"])),
        "bfloat16",
        "plain numbers",
    ),
    "future": (
        helper.make_model(one("Neg").graph, opset_imports=[helper.make_opsetid("", 999)]),
        "refuses",
        "older opset",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_can_only_answer_wrongly_is_refused(tmp_path: Path, case: str) -> None:
    model, why, hint = REFUSED[case]
    with pytest.raises(LoadError, match=why) as raised:
        load(tmp_path, model)

    assert raised.value.exit_code == 78
    assert hint in raised.value.hint
    assert "/proc/" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_bad_graph_is_refused(tmp_path: Path) -> None:
    model = one("Neg")
    model.graph.node[0].input[0] = "nothing"
    with pytest.raises(LoadError, match="refuses"):
        load(tmp_path, model)


@pytest.mark.parametrize("dtype", onnx_model.NUMPY)
def test_every_type_of_the_protocol_passes_unchanged(tmp_path: Path, dtype: str) -> None:
    kind = np.dtype(onnx_model.NUMPY[dtype])
    assert kind.itemsize == wire.DTYPE_BYTES[dtype]
    number = helper.np_dtype_to_tensor_dtype(kind)
    model = load(tmp_path, one("Identity", ("x", number, ["n", 3]), ("y", number, ["n", 3])))
    sent = np.arange(6).reshape(2, 3).astype(kind)
    meta, payload = model.run(frame(model, sent))

    assert model.signature.outputs == [{"name": "y", "dtype": dtype, "shape": [3]}]
    assert b"".join(map(bytes, payload)) == sent.tobytes()
    assert meta == {"shapes": {"y": [3]}}


@given(rows=st.integers(1, 8), lengths=st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_free_dims_and_empty_tensors(
    rows: int, lengths: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = load(tmp_path_factory.mktemp("m"), one("Neg", ("x", FLOAT, ["n", "k"]), ("y", FLOAT, ["n", "k"])))
    for length in lengths:
        sent = np.arange(rows * length, dtype="f4").reshape(rows, length)
        meta, payload = model.run(frame(model, sent))
        assert meta["shapes"] == {"y": [length]}
        assert np.frombuffer(b"".join(map(bytes, payload)), "f4").tolist() == (-sent).ravel().tolist()


@given(st.data())
def test_rows_that_are_not_finite_are_named_exactly(data: st.DataObject) -> None:
    model = MODELS["identity"]
    rows = data.draw(st.integers(1, 8))
    values = st.sampled_from([0.0, 1.5, -3e38, float("nan"), float("inf"), float("-inf")])
    sent = np.array([[data.draw(values) for _ in range(2)] for _ in range(rows)], "f4")
    meta, _ = model.run(frame(model, sent))

    expected = [row for row in range(rows) if not np.isfinite(sent[row]).all()]
    assert meta.get("invalid", []) == expected


def test_an_output_whose_rows_depend_on_values_is_a_wrong_shape(tmp_path: Path) -> None:
    """Compress leaves rows out: zeros pass when it is warmed, other values do not."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Less", ["m", "one"], ["c"]),
        helper.make_node("Compress", ["x", "c"], ["y"], axis=0),
    ]
    model = load(
        tmp_path,
        graph_model(
            nodes, [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["k", 2])], [weights("one", np.array(1, "f4"))]
        ),
    )
    model.run(frame(model, np.zeros((3, 2), "f4")))
    with pytest.raises(BatchError) as raised:
        model.run(frame(model, np.array([[0, 0], [5, 5]], "f4")))
    assert raised.value.code == "wrong-shape"


def test_an_output_without_a_declared_shape_is_learnt(tmp_path: Path) -> None:
    model = load(tmp_path, one("Neg", out=("y", FLOAT, None)))
    assert model.signature.outputs[0]["shape"] in ([2], [None])


def test_a_model_that_zeros_do_not_fit_is_served_unwarmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes only lengths that no guess hits."""
    shape = weights("s", np.array([-1, 7, 11], "i8"))
    model = load(
        tmp_path,
        graph_model(
            [helper.make_node("Reshape", ["x", "s"], ["y"])],
            [("x", FLOAT, ["n", "k"])],
            [("y", FLOAT, ["n", 7, 11])],
            [shape],
        ),
    )
    assert "could not be warmed" in capsys.readouterr().err
    meta, _ = model.run(frame(model, np.ones((2, 77), "f4")))
    assert meta["shapes"] == {"y": [7, 11]}


def test_bools_are_zero_or_one_to_the_model(tmp_path: Path) -> None:
    model = load(tmp_path, one("Not", ("x", TensorProto.BOOL, ["n", 2]), ("y", TensorProto.BOOL, ["n", 2])))
    sent = np.array([[0, 1], [2, 255]], "u1")
    _, payload = model.run(frame(model, sent))
    assert b"".join(map(bytes, payload)) == b"\1\0\0\0"


def test_answers_do_not_change_when_the_frame_s_memory_does(tmp_path: Path) -> None:
    model = MODELS["identity"]
    asked = frame(model, np.ones((1, 2), "f4"))
    _, payload = model.run(asked)
    before = b"".join(map(bytes, payload))
    asked.payload[:] = bytes(8)
    assert b"".join(map(bytes, payload)) == before


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> None:
    MODELS["identity"] = load(tmp_path_factory.mktemp("identity"), one("Identity"))


MODELS: dict[str, onnx_model.OnnxModel] = {}


def test_labels_and_scores(tmp_path: Path) -> None:
    made, expected = logistic(4, 3)
    model = load(tmp_path, made)
    x = np.eye(4, dtype="f4")
    _, payload = model.run(frame(model, x))
    assert np.frombuffer(payload[0], "<i8").tolist() == expected(x).argmax(axis=1).tolist()
    assert [tensor["dtype"] for tensor in model.signature.outputs] == ["INT64", "FP32"]
    assert INT64 == TensorProto.INT64
