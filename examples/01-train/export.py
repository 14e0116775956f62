"""The trained network as ONNX: raw pixels in, probabilities and label out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from digits import CLASSES, PIXEL_MAX, PIXELS
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # the one that goes with opset 17: older runtimes refuse a newer file


def export_onnx(parameters: Sequence[NDArray[np.float32]], path: Path) -> None:
    """Write weights and biases, layer by layer, as a checked ONNX file.

    Input ``image``: float32 [N, 64], pixels from 0 to 16. Outputs ``probabilities``: float32 [N, 10], and
    ``label``: int64 [N].
    """
    constants = [numpy_helper.from_array(np.array(PIXEL_MAX, np.float32), "pixel_max")]
    nodes = [helper.make_node("Div", ["image", "pixel_max"], ["x0"])]
    layers = len(parameters) // 2
    for i in range(layers):
        constants += [
            numpy_helper.from_array(parameters[2 * i], f"weights{i}"),
            numpy_helper.from_array(parameters[2 * i + 1], f"bias{i}"),
        ]
        nodes.append(helper.make_node("Gemm", [f"x{i}", f"weights{i}", f"bias{i}"], [f"z{i}"]))
        if i + 1 < layers:
            nodes.append(helper.make_node("Relu", [f"z{i}"], [f"x{i + 1}"]))
    nodes.append(helper.make_node("Softmax", [f"z{layers - 1}"], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", PIXELS])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
