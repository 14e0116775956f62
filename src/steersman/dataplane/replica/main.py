"""Entry point: ``python main.py``, everything else from the environment (see `settings`).

1. Find the package beside this file, without leaving a trace on the path: the interpreter is the user's.
   Take the certificate, if there is one, out of the environment, before any code of the user's can see it.
2. Load and warm the model, under a time limit.
3. Listen; write ``ready.json``; ring. To be able to connect is to be ready.
4. Serve until SIGTERM and every gateway's agreement. Exit 0; 78 when the model can never be served; 1 when
   loading failed in a way that another start may not; signal 14 when the model hung.
"""

from __future__ import annotations

import os
import sys
import time

BEGUN = time.monotonic()
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - before the path is in order
if sys.path and sys.path[0] == HERE:
    del sys.path[0]  # run as a file: modules of this folder must not stand in for the user's

import importlib  # noqa: E402 - the path first
import importlib.util  # noqa: E402 - the path first
from pathlib import Path  # noqa: E402 - the path first


def _adopt_package() -> None:
    """Make `steersman` the package this file lies in, whatever else is installed here under that name."""
    home = Path(HERE).parents[1]
    spec = importlib.util.spec_from_file_location(
        "steersman", home / "__init__.py", submodule_search_locations=[str(home)]
    )
    assert spec is not None, "the path names a Python file"
    assert spec.loader is not None, "the same"
    package = importlib.util.module_from_spec(spec)
    sys.modules["steersman"] = package
    spec.loader.exec_module(package)


if "steersman" not in sys.modules:
    _adopt_package()

import asyncio  # noqa: E402 - the path first
import gc  # noqa: E402 - the path first

from steersman.dataplane.replica import callables, places, tls, watchdog  # noqa: E402 - needs the package
from steersman.dataplane.replica.async_server import AsyncServer, Setting  # noqa: E402 - needs the package
from steersman.dataplane.replica.ending import Ending  # noqa: E402 - needs the package
from steersman.dataplane.replica.errors import EXIT_FAILED, LoadError  # noqa: E402 - needs the package
from steersman.dataplane.replica.model import (  # noqa: E402 - needs the package
    BATCHES_MAX_ASYNC,
    BATCHES_MAX_SYNC,
    Model,
    hello,
)
from steersman.dataplane.replica.server import Limits, Server  # noqa: E402 - needs the package
from steersman.dataplane.replica.settings import Settings, read_settings  # noqa: E402 - needs the package
from steersman.ports import run_dir  # noqa: E402 - needs the package

ONNX_MODULE = "steersman.dataplane.replica.onnx_model"


def say(text: str) -> None:
    """A line in the user's log."""
    sys.stdout.write(f"replica: {text}\n")
    sys.stdout.flush()


def load(settings: Settings) -> Model | callables.AsyncCallableModel:
    """The model, warm. Raises LoadError."""
    if settings.kind == "onnx":
        try:
            # Not at the top: a callable's interpreter need not have onnxruntime.
            onnx_model = importlib.import_module(ONNX_MODULE)
        except ImportError as error:
            raise LoadError(
                f"onnxruntime cannot be imported here: {error}", hint="pip install 'steersman[onnx]'"
            ) from error
        model: Model
        model, described = onnx_model.load(settings)
        say(f"loaded {settings.model}: {described}")
        return model
    # As `python script.py` in the workdir would have it; ONNX needs nothing from there.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - a text
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))
    target = callables.find(settings.target)
    say(f"loaded {settings.target}: {target.form}{', batched' if target.batched else ''}")
    if target.form == "sync":
        return callables.CallableModel(target, settings.batch_size_max)
    return callables.AsyncCallableModel(target, settings.batch_size_max)


def main() -> int:
    """Live; the exit code."""
    texts = tls.take(os.environ)
    try:
        settings = read_settings(os.environ)
        gate = tls.make_gate(texts) if settings.listen else None
        watchdog.prepare()
        say(
            f"loading {settings.target or settings.model}; signal 14 (SIGALRM) will mean that it took longer"
            f" than {settings.load_timeout_ms} ms, or a batch longer than {settings.batch_timeout_ms} ms"
        )
        watchdog.arm(settings.load_timeout_ms / 1000)
        model = load(settings)
        watchdog.disarm()
        watchdog.prepare()
    except LoadError as error:
        sys.stderr.write(f"replica: the model cannot be served: {error}\n")
        return error.exit_code
    try:
        batches = _serve(settings, model, gate)
    except OSError as error:
        sys.stderr.write(f"replica: {error}; hint: look at the disk and at the limits of open files\n")
        return EXIT_FAILED
    say(f"drained: {batches} batches were answered")
    return 0


def _serve(settings: Settings, model: Model | callables.AsyncCallableModel, gate: tls.Gate | None) -> int:
    """Listen, announce, serve; how many batches. Raises OSError."""
    folder = Path(settings.run_dir)
    seconds_max = settings.batch_timeout_ms / 1000
    rows_max = model.signature.batch_size_max
    waits = isinstance(model, callables.AsyncCallableModel)
    load_ms = round((time.monotonic() - BEGUN) * 1000)
    greeting = hello(settings, model.signature, BATCHES_MAX_ASYNC if waits else BATCHES_MAX_SYNC, load_ms)
    ending = Ending()

    def on_drain() -> None:
        if gate is None:
            places.unlisten(folder)
        listener.close()
        say("draining: no new batches")

    gc.freeze()  # what was loaded stays: no collection need look at it
    word: dict[str, int | str] = {"load_ms": load_ms}
    if gate is None:
        listener = places.listen(folder)
    else:
        listener, word["address"] = places.listen_on(settings.listen)
    word["at_ms"] = time.time_ns() // 1_000_000
    places.write_json(folder / run_dir.READY, word)
    places.ring(settings.doorbell)
    say(f"ready after {load_ms} ms")
    if isinstance(model, callables.AsyncCallableModel):
        served = AsyncServer(Setting(model, greeting, rows_max, seconds_max, gate))
        asyncio.run(served.serve(listener, ending, on_drain))
        return served.batches
    server = Server(model, greeting, Limits(rows_max, seconds_max, gate))
    server.serve(listener, ending, on_drain)
    return server.batches


if __name__ == "__main__":
    sys.exit(main())
