"""The model as every peer calls it: rows in, one call of onnxruntime on one thread, rows out.

Rows are what the request's JSON held: per input a list without the batch dimension. Rows of different
lengths are filled up with zeros to the longest of their batch, which the model's mask makes harmless.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

MODEL = os.environ.get("BENCH_MODEL", "")
PORT = int(os.environ.get("BENCH_PORT", "0"))
BATCH = int(os.environ.get("BENCH_BATCH", "64"))
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}

Row = dict[str, Any]


class Rows:
    """One loaded model."""

    def __init__(self, path: str = MODEL) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [(each.name, DTYPES[each.type]) for each in self._session.get_inputs()]
        self._outputs = [each.name for each in self._session.get_outputs()]

    def _stack(self, values: Sequence[Any], dtype: Any) -> Any:
        longest = max(len(value) for value in values)
        if any(len(value) != longest for value in values):
            values = [[*value, *[0] * (longest - len(value))] for value in values]
        return np.asarray(values, dtype)

    def arrays(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The outputs by name, each with as many rows."""
        feed = {name: self._stack([row[name] for row in rows], dtype) for name, dtype in self._inputs}
        return dict(zip(self._outputs, self._session.run(None, feed), strict=True))

    def run(self, rows: Sequence[Row]) -> list[Row]:
        """The outputs as one JSON-able dict a row."""
        lists = {name: array.tolist() for name, array in self.arrays(rows).items()}
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
