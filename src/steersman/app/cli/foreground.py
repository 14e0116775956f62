"""The control plane in this process. Loaded only to run it."""

import os

from steersman.app.server import Announce, run_server
from steersman.app.settings import Settings


def run(settings: Settings, announce: Announce) -> None:
    """Serve until a signal."""
    run_server(settings, os.environ, announce)
