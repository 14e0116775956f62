"""Entry point: ``python -m steersman.dataplane.gateway.main HOME`` is the master, which begins the workers.

The only module that knows which exchange and which codec the front stands before.
"""

import asyncio
import os
import sys
from pathlib import Path

from steersman.dataplane.gateway.codec.codec import BadRequest, Codec
from steersman.dataplane.gateway.contract import Parts
from steersman.dataplane.gateway.exchange.exchange import Exchange
from steersman.dataplane.gateway.http.connection import reread
from steersman.dataplane.gateway.master import run_master
from steersman.dataplane.gateway.tracing import Tracer
from steersman.dataplane.gateway.worker import run_worker

WORKER = "--worker"
MODULE = "steersman.dataplane.gateway.main"


def make_parts(loop: asyncio.AbstractEventLoop, home: Path) -> Parts:
    """The real neighbours of a front."""
    exchange = Exchange(loop, Codec, home)
    exchange.reread = reread
    tracer = Tracer(os.environ)  # made in the worker: its exporter has a thread
    return Parts(exchange, BadRequest, tracer if tracer.enabled else None, tracer.close)


def main(argv: list[str]) -> None:
    """Run a master, or with --worker one of its workers."""
    if argv[1] == WORKER:
        run_worker(argv[2:], make_parts)
    else:
        run_master(Path(argv[1]).absolute(), [sys.executable, "-m", MODULE, WORKER])


if __name__ == "__main__":
    main(sys.argv)
