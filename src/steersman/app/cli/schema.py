"""`steer schema`: the JSON Schema of declarations, for editors."""

import typer

from steersman.app.cli.options import Home, Json
from steersman.app.cli.say import say_json
from steersman.spec.schema import json_schema

app = typer.Typer(add_completion=False)


@app.command()
def schema(*, json: Json = True, home: Home = None) -> int:  # noqa: ARG001 - every verb has both options
    """Print the JSON Schema of declarations; save it and point your editor's YAML support at it."""
    say_json(json_schema())
    return 0
