"""`steer lost`: a node or a cluster that cannot be asked will not come back."""

from typing import Annotated

import typer

from steersman.app.cli.options import Home, Json, connect
from steersman.app.cli.say import say, say_json
from steersman.app.client import path
from steersman.app.wire import NamesView

Machines = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a node or of a cluster.", show_default=False)
]

app = typer.Typer(add_completion=False)


@app.command()
def lost(name: Machines, *, json: Json = False, home: Home = None) -> int:
    """Say that a node or a cluster that cannot be asked will not come back.

    What ran there counts as lost, and begins elsewhere. Say it only when nothing can run there any more:
    Steersman cannot see that, and so it waits without this word. A node that answers is not taken for lost.
    """
    with connect(home) as client:
        answer = client.post(path("nodes", name, "lost"), None, NamesView)
    if json:
        say_json(answer)
    else:
        say(f"lost: {', '.join(answer.names)}" if answer.names else f"{name} was lost already")
    return 0
