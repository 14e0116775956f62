"""The options that every verb has, and what they lead to: settings, a client."""

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from steersman.app.cli.patient import PatientClient
from steersman.app.client import Client, find_server
from steersman.app.settings import Settings, read_settings

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="The home folder; else $STEERSMAN_HOME, else ~/.local/state/steersman.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of words.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the outcome, or return at once.")]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE…",
        help="Files, folders of *.yaml and *.yml, or `-` for the standard input.",
        show_default=False,
    ),
]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a job, service or replica.", show_default=False)
]


def settings_of(home: Path | None, port: int | None = None) -> Settings:
    """The settings of this process. Raises HomeError."""
    return read_settings(os.environ, home, port)


def connect(home: Path | None) -> Client:
    """A client of the home's control plane. Raises NoServerError, HomeError, AccessError."""
    settings = settings_of(home)
    return Client(settings.home, find_server(settings))


def patient(client: Client, home: Path | None) -> PatientClient:
    """The same client for a verb that waits: it looks for a control plane that is gone meanwhile."""
    return PatientClient(settings_of(home), client)


R = TypeVar("R")


def takes(record: type[R]) -> Callable[[Callable[[R], int]], Callable[..., int]]:
    """Make a verb of a function that takes one record: the fields of that dataclass become the options."""
    hints = get_type_hints(record, include_extras=True)

    def wrap(work: Callable[[R], int]) -> Callable[..., int]:
        def verb(**given: Any) -> int:
            return work(record(**given))

        verb.__doc__ = work.__doc__
        verb.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what inspect reads first
            [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if field.default is MISSING else field.default,
                    annotation=hints[field.name],
                )
                for field in fields(record)  # type: ignore[arg-type]  # a dataclass, as the docstring asks
            ]
        )
        return verb

    return wrap
