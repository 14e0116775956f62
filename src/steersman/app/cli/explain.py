"""`steer explain`: why a workload is where it is, what is in the way, the nearest fix, and what happened."""

import time
from collections.abc import Callable, Iterator, Mapping

import typer

from steersman.app.cli.options import Home, Json, Name, connect
from steersman.app.cli.say import say, say_json
from steersman.app.client import path
from steersman.explain.refusals import Refusal
from steersman.explain.workload import Explanation
from steersman.model.reasons import Code
from steersman.model.units import format_bytes, format_cpu

app = typer.Typer(add_completion=False)

_UNITS: Mapping[Code, Callable[[int], str]] = {
    Code.NO_CORES: lambda milli: f"{format_cpu(milli)} cores",
    Code.NO_MEMORY: format_bytes,
    Code.NO_SHARE: lambda milli: f"{format_cpu(milli)} of a device",
}


@app.command()
def explain(name: Name, *, json: Json = False, home: Home = None) -> int:
    """Tell why a workload is where it is and how big, what was refused, and the nearest fix."""
    with connect(home) as client:
        found = client.get(path("explain", name), Explanation)
    if json:
        say_json(found)
    else:
        say("\n".join(_lines(found)))
    return 0


def _lines(found: Explanation) -> Iterator[str]:
    yield f"{found.name}: {found.phase}"
    yield f"  where  {found.where}"
    yield f"  why    {found.why}" + (f" [{found.code}]" if found.code else "")
    if found.fix:
        yield f"  fix    {found.fix}"
    yield f"  size   {found.size}"
    for fact in found.facts:
        yield f"         {fact}"
    if found.refused:
        yield "nodes without room: " + ", ".join(f"{count} × {code}" for code, count in found.refused)
    for refusal in found.refusals:
        yield f"  {refusal.node}  {refusal.code.value}{amounts(refusal)}"
    if found.rivals:
        yield "in the way:"
    for rival in found.rivals:
        why = rival.why_not or "may be preempted"
        yield f"  {rival.run} (priority {rival.priority}): {why}"
    if found.moments:
        yield "what happened:"
    for moment in found.moments:
        by = f"  [{moment.decision} {moment.code}]" if moment.decision else ""
        yield f"  {_at(moment.at_ms)}  {moment.words}{by}"


def amounts(refusal: Refusal) -> str:
    """What it asks of the node and what is free there, in the units that people write."""
    if not refusal.asked:
        return ""
    shown = _UNITS.get(refusal.code, str)
    return f": asks for {shown(refusal.asked)}, {shown(refusal.free)} free"


def _at(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms / 1000)) + f".{at_ms % 1000:03d}Z"
