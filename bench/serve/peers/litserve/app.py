"""LitServe as its documentation advises for throughput: batching in the LitAPI, the fast (ZeroMQ) queue."""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, attr-defined"
# Its reason: the peer is installed in its own environment alone, so that all of its types are unknown here.

import os
from typing import Any

import litserve
from fastapi import Request
from rows import BATCH, PORT, Rows

BATCH_TIMEOUT_SECONDS = float(os.environ.get("BENCH_BATCH_WAIT", "0.01"))


class Api(litserve.LitAPI):
    """One worker."""

    def setup(self, device: Any) -> None:  # noqa: ARG002 – LitServe gives it
        self._rows = Rows()

    def decode_request(self, request: Request) -> Any:
        return request

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: Any) -> Any:
        return self._rows.run(x) if BATCH > 1 else self._rows.run([x])[0]

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


def main() -> None:
    """One worker and one front."""
    api = Api(max_batch_size=BATCH, batch_timeout=BATCH_TIMEOUT_SECONDS if BATCH > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
