"""The verbs, and the one place where their modules are loaded, by name, when they are called.

A verb's module holds a typer application called `app`. Help of all verbs comes from the table below, so that
it needs none of them. Errors become two lines on stderr and an exit code; nothing else prints an error.
"""

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

import steersman
from steersman.app.cli import INTERRUPTED, load
from steersman.app.cli.say import say, say_error
from steersman.model.errors import SteersmanError

FAILED = 1
WRONG_USAGE = 2
SERVER_LOST = 3
PLAN_FAILED = 255
EXIT_OF_CODE = {"server-lost": SERVER_LOST}
"""Exit codes of errors that are told from a workload's failure, by stable code: no verb is loaded for it."""

_INTERRUPTED: Mapping[str, str] = {
    "up": "interrupted; what was declared goes on (steer status; steer stop NAME)",
    "apply": "interrupted; what was declared goes on (steer status; steer stop NAME)",
    "logs": "interrupted",
    "status": "interrupted",
}
_INTERRUPTED_ELSE = "interrupted: nothing is half-done; `steer status` tells how things are"


class Verb(NamedTuple):
    """A verb: its module in this package and its line of help. One without help is another's second name."""

    module: str
    words: str = ""


VERBS: Mapping[str, Verb] = {
    "up": Verb("up", "Declare workloads and keep them so; starts the control plane if none runs."),
    "apply": Verb("up"),
    "plan": Verb("plan", "Show what `up` would do; exits 0 for no change, 1 for changes, 255 for an error."),
    "status": Verb("status", "Show all jobs and services at a glance, or one of them whole."),
    "replay": Verb("replay", "Put recorded history before the deciders: what would they have done?"),
    "queue": Verb("queue", "Show what waits, in order, and for what."),
    "logs": Verb("logs", "Show the output of a job, a replica or the gateway."),
    "explain": Verb("explain", "Tell why a workload is where it is, and what would change that."),
    "audit": Verb("audit", "List, filter and verify everything that happened."),
    "stop": Verb("stop", "End a job's run or a service's replicas, and keep the declaration."),
    "down": Verb("down", "Remove jobs and services, and wait until they are gone."),
    "lost": Verb("lost", "Say that a node or a cluster that cannot be asked will not come back."),
    "server": Verb("server", "Run the control plane, here or in the background, or end it."),
    "secret": Verb("secret", "Set, list and remove sealed secrets."),
    "policy": Verb("policy", "Show the numbers that decisions obey, and set them."),
    "key": Verb("key", "Make, list and revoke API keys for callers of services."),
    "schema": Verb("schema", "Print the JSON Schema of declarations, for editors."),
    "doctor": Verb("doctor", "Check this machine and the home."),
}


def load_verb(name: str) -> Any:
    """A verb's command, with its options."""
    command = typer.main.get_command(load(VERBS[name].module).app)
    command.name = name
    return command


class Root(TyperGroup):
    """`steer`: knows the verbs by name and loads the one that is called.

    The contexts are typer's own vendored click's, which it does not export: hence Any.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the framework's signature
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the framework's signature
        """A verb as help and completion need it: its name and its line."""
        verb = VERBS.get(cmd_name)
        return None if verb is None else TyperCommand(cmd_name, help=verb.words, hidden=not verb.words)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The verb that is called, loaded."""
        name = args[0]
        if name in VERBS:
            return name, load_verb(name), args[1:]
        close = get_close_matches(name, VERBS, n=1, cutoff=0.7)
        hint = f": did you mean {close[0]!r}?" if close else ""
        ctx.fail(f"there is no verb {name!r}{hint}")
        raise AssertionError(name)


def _root(
    ctx: typer.Context,
    *,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Steersman: declare AI workloads once; it decides where, when and how big, acts, and explains."""
    if version:
        say(f"steersman {steersman.__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())


def make_root() -> Any:
    """The command `steer`."""
    app = typer.Typer(cls=Root, invoke_without_command=True, add_completion=True)
    app.callback()(_root)
    return typer.main.get_command(app)


def run(argv: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    verb = next((word for word in argv if not word.startswith("-")), "")
    try:
        code = make_root().main(args=list(argv), prog_name="steer", standalone_mode=False)
    except SteersmanError as error:
        say_error(error.message, error.hint, code=error.code, as_json="--json" in argv)
        return PLAN_FAILED if verb == "plan" else EXIT_OF_CODE.get(error.code, FAILED)
    except typer.TyperException as error:
        hint = f"steer {verb} --help" if verb in VERBS else "steer --help"
        say_error(error.format_message().rstrip("."), hint, code="usage", as_json="--json" in argv)
        return PLAN_FAILED if verb == "plan" else WRONG_USAGE
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED:
        sys.stderr.write(_INTERRUPTED.get(verb, _INTERRUPTED_ELSE) + "\n")
    return code if isinstance(code, int) else 0
