"""BentoML as its documentation advises for throughput: a batchable endpoint, whose adaptive batching picks
the size and the wait from what it measures. A request holds a batch of one row."""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, attr-defined"
# Its reason: the peer is installed in its own environment alone, so that all of its types are unknown here.

from typing import Any

import bentoml
from rows import BATCH, Rows

BATCHING: dict[str, Any] = {"batchable": True, "max_batch_size": BATCH} if BATCH > 1 else {}


@bentoml.service(workers=1, traffic={"timeout": 30})
class Model:
    """One worker."""

    def __init__(self) -> None:
        self._rows = Rows()

    @bentoml.api(**BATCHING)
    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._rows.run(rows)
