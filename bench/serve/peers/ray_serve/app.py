"""Ray Serve as its documentation advises for throughput: `serve.batch` inside a deployment that takes several
batches' worth of requests at once.

It prints one JSON line once it serves. Then each line on stdin, like {"replicas": 2, "version": "3"}, deploys
that and is answered with a line when Serve says that it is done.
"""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, attr-defined"
# Its reason: the peer is installed in its own environment alone, so that all of its types are unknown here.

import json
import os
import sys
from typing import Any

import ray
from ray import serve
from rows import BATCH, PORT, Rows
from starlette.requests import Request

APP = "bench"
BATCH_WAIT_SECONDS = float(os.environ.get("BENCH_BATCH_WAIT", "0.002"))
LOGICAL_CPUS = 16
OBJECT_STORE_BYTES = 100 << 20


@serve.deployment(max_ongoing_requests=4 * BATCH, ray_actor_options={"num_cpus": 1})
class Model:
    """One replica."""

    def __init__(self, version: str) -> None:
        self._rows, self._version = Rows(), version

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT_SECONDS)
    async def infer(self, rows: list[Any]) -> list[Any]:
        return self._rows.run(rows)

    async def __call__(self, request: Request) -> Any:
        return await self.infer(await request.json())


def deploy(replicas: int, version: str) -> None:
    """Returns once Serve says that it runs."""
    serve.run(Model.options(num_replicas=replicas).bind(version), name=APP, route_prefix="/predict")


def say(**words: Any) -> None:
    """One line on stdout."""
    print(json.dumps(words), flush=True)


def main() -> None:
    """Starts a Ray of its own."""
    ray.init(
        num_cpus=LOGICAL_CPUS,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=os.environ["BENCH_FOLDER"],
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    deploy(1, "0")
    say(ready=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        deploy(wanted["replicas"], wanted["version"])
        say(done=True)


if __name__ == "__main__":
    main()
