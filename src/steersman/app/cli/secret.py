"""`steer secret`: sealed secrets of the home. A value is never an argument: those are seen by others."""

import getpass
import sys
from typing import Annotated

import typer

from steersman.app.cli.options import Home, Json, settings_of
from steersman.app.cli.say import say, say_json
from steersman.app.settings import prepare_home
from steersman.guard.secrets import VALUE_BYTES_MAX, Secrets
from steersman.model.errors import ConflictError

app = typer.Typer(add_completion=False, help="Set, list and remove sealed secrets.", no_args_is_help=True)

SecretName = Annotated[
    str, typer.Argument(metavar="NAME", help="As declarations name it: HF_TOKEN.", show_default=False)
]


@app.command("set")
def set_secret(name: SecretName, *, json: Json = False, home: Home = None) -> int:
    """Seal a secret. Its value is asked for, or read from the standard input (one line end is dropped)."""
    sealed = _secrets(home)
    sealed.set(name, _value(name))
    _done(name, "is set", as_json=json)
    return 0


@app.command("list")
def list_secrets(*, json: Json = False, home: Home = None) -> int:
    """List the names; values are never shown."""
    names = _secrets(home).list()
    if json:
        say_json(names)
    else:
        say("\n".join(names) if names else "no secret is set")
    return 0


@app.command("rm")
def remove_secret(name: SecretName, *, json: Json = False, home: Home = None) -> int:
    """Remove a secret. Running jobs keep what they were given."""
    _secrets(home).delete(name)
    _done(name, "is removed", as_json=json)
    return 0


def _secrets(home: Home) -> Secrets:
    settings = settings_of(home)
    prepare_home(settings.home)
    return Secrets(settings.home)


def _value(name: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"value of {name}: ")
    data = sys.stdin.buffer.read(VALUE_BYTES_MAX + 2)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConflictError(
            f"the value of {name!r} is not UTF-8 text", hint="encode it, as base64"
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


def _done(name: str, words: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"secret": name})
    else:
        say(f"the secret {name} {words}")
