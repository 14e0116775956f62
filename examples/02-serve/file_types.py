"""What type is this file: Google's Magika behind one method, as Steersman serves it.

A request is {"base64": the file's bytes}; the answer {"label": a type, "score": how sure the model is}.
"""

import base64
from typing import Any

from magika import Magika


class FileTypes:
    """Made once a replica; `load` runs before the replica is ready, `predict` once a request."""

    def load(self) -> None:
        self.magika = Magika()

    def predict(self, item: dict[str, Any]) -> dict[str, Any]:
        found = self.magika.identify_bytes(base64.b64decode(item["base64"]))
        return {"label": found.output.label, "score": round(found.score, 4)}
