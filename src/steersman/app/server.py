"""The server process: a home's engine and its API in one event loop, from taking the home to a clean end.

Theory of operation. The home is taken first (the journal's lock), then the state is read, then the port is
bound, then ``server.json`` says where; so whoever reads that file finds a server that answers. On SIGTERM,
SIGINT or SIGHUP the API stops taking requests and the engine closes, within `CLOSE_SECONDS`; the work goes on
without it. When the engine or the API cannot go on, so does the process not: it ends with the error.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Mapping

import uvicorn

from steersman.app.control import Control
from steersman.app.http.api import Asgi, make_api
from steersman.app.server_file import ServerFile, describe_server, remove_server, write_server
from steersman.app.settings import Settings, prepare_home
from steersman.app.wiring import wired
from steersman.engine.engine import Engine
from steersman.guard.token import load_or_create_token
from steersman.model.errors import HomeError

ADDRESS = "127.0.0.1"
CLOSE_SECONDS = 0.8
"""How long open requests, and then the loop, may each take to end."""
KEEP_ALIVE_SECONDS = 15
CONNECTIONS_MAX = 256
BACKLOG = 128
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Announce = Callable[[ServerFile], None]


def run_server(settings: Settings, environ: Mapping[str, str], announce: Announce) -> None:
    """Serve a home until a signal. `announce` is called once it answers. Raises SteersmanError."""
    prepare_home(settings.home)
    token = load_or_create_token(settings.home)
    asyncio.run(_serve(settings, environ, token, announce))


async def _serve(settings: Settings, environ: Mapping[str, str], token: str, announce: Announce) -> None:
    stop = asyncio.Event()
    with wired(settings, environ) as home, _signals(stop):
        engine = Engine(home.parts)
        await engine.start()
        control = Control(engine, home.parts, home.secrets, settings, home.figures)
        with bind(settings.port) as listener:
            port = int(listener.getsockname()[1])
            here = describe_server(port, engine.snapshot.epoch)
            http = Http(make_api(control, token), listener)
            running = asyncio.create_task(engine.run(), name="engine")
            serving = asyncio.create_task(http.serve(), name="http")
            try:
                await http.started(serving)
                write_server(settings.server_file, here)
                announce(here)
                await _until(stop, running, serving)
            finally:
                remove_server(settings.server_file, here)
                await _close(engine, running, http, serving)
                await home.leave()


async def _until(stop: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """Wait for the signal, or for a task that ends by itself."""
    signalled = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({signalled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        signalled.cancel()


async def _close(
    engine: Engine, running: asyncio.Task[None], http: "Http", serving: asyncio.Task[None]
) -> None:
    """End both, the API first. Raises the error that either ended with."""
    engine.let_go()
    http.stop()
    await asyncio.wait({serving}, timeout=CLOSE_SECONDS)
    await engine.close()
    await asyncio.wait({running}, timeout=CLOSE_SECONDS)
    tasks = (running, serving)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def bind(port: int) -> socket.socket:
    """A listening socket on loopback: at the port, or at a free one when that is taken. Raises HomeError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # A port that only waits out an old connection may be taken at once; one that listens may not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.bind((ADDRESS, 0))
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise HomeError(f"cannot listen on {ADDRESS}: {error.strerror}", hint="check the network") from error
    listener.setblocking(False)
    return listener


class Http:
    """Uvicorn in our loop, with our signals and our socket."""

    def __init__(self, app: Asgi, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._listener = listener

    async def serve(self) -> None:
        """Answer until `stop`."""
        await self._server.serve(sockets=[self._listener])

    async def started(self, serving: asyncio.Task[None]) -> None:
        """Return when requests are answered; the error of `serving` when it ended instead."""
        while not self._server.started:
            done, _ = await asyncio.wait({serving}, timeout=0.005)
            if done:
                serving.result()
                raise HomeError("the API ended before it began", hint="its log tells more: server.log")

    def stop(self) -> None:
        """Take no more requests and end."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves signals alone: they are the whole process's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
