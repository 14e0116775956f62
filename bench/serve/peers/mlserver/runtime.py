"""MLServer with a custom runtime, as its documentation tells for a framework it has none for, and adaptive
batching. A batch holds the rows of several requests one after another in each input's data, as nested lists:
the shape is that of the first request alone, so rows are read from the data."""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, attr-defined"
# Its reason: the peer is installed in its own environment alone, so that all of its types are unknown here.

from typing import Any

import mlserver
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from rows import MODEL, Rows


def _data(tensor: Any) -> Any:
    return getattr(tensor.data, "root", tensor.data)


class Model(mlserver.MLModel):
    """One model."""

    async def load(self) -> bool:
        self._rows = Rows(MODEL)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        names = [each.name for each in payload.inputs]
        columns = zip(*(_data(each) for each in payload.inputs), strict=True)
        outputs = self._rows.arrays([dict(zip(names, row, strict=True)) for row in columns])
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, array) for name, array in outputs.items()],
        )
