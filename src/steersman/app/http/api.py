"""The application: the router, its limits, its error words, behind the gate."""

from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ASGIApp

import steersman
from steersman.app.control import Control
from steersman.app.http.errors import on_http, on_nested, on_steersman, on_unforeseen
from steersman.app.http.gate import Gate
from steersman.app.http.routes import router
from steersman.app.metrics import exposition
from steersman.app.wire import BODY_BYTES_MAX
from steersman.model.errors import SteersmanError

Asgi = ASGIApp
"""What a server serves; so named here that nothing outside this package needs the framework."""


def make_litestar(control: Control) -> Litestar:
    """The routes without the gate; tests enumerate them."""
    figures = exposition(control.engine, control.figures)

    def give_control() -> Any:
        return control

    def give_figures() -> Any:
        return figures

    return Litestar(
        route_handlers=[router()],
        dependencies={
            "control": Provide(give_control, sync_to_thread=False),
            "exposition": Provide(give_figures, sync_to_thread=False),
        },
        exception_handlers={
            SteersmanError: on_steersman,
            HTTPException: on_http,
            RecursionError: on_nested,
            Exception: on_unforeseen,
        },
        openapi_config=OpenAPIConfig(
            title="Steersman",
            version=steersman.__version__,
            path="/schema",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        ),
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,
        debug=False,
    )


def make_api(control: Control, token: str) -> ASGIApp:
    """What the server serves."""
    return Gate(make_litestar(control), token)
