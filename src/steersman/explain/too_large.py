"""In words: what is asked for that the whole fleet, empty, does not have, and what to change."""

from collections.abc import Mapping

from steersman.model.resources import ALTERNATIVES
from steersman.model.units import format_bytes, format_cpu

Facts = Mapping[str, str | int]


def too_large(facts: Facts) -> str:
    """What is asked for and not there."""
    lacks = [f"{asked} where the largest node has {largest}" for _, asked, largest in _amounts(facts)]
    for kind, count, largest in _devices(facts):
        if not largest:
            kinds = facts.get("kinds") or "none"
            lacks.append(f"{facts.get('part', count)} of {_named(kind)}, where the nodes have {kinds}")
        elif count > largest:
            lacks.append(f"{count} x {_named(kind)} where the best node has {largest}")
    return "the fleet cannot hold it even when empty: it asks for " + " and ".join(
        lacks or [_together(facts)]
    )


def too_large_fix(facts: Facts) -> str:
    """What would be granted, or what to add."""
    devices = _devices(facts)
    if facts.get("kinds") and any(not largest for _, _, largest in devices):
        return f"name a kind that is there ({facts['kinds']}), or add a node that has it to the fleet"
    less = [f"{key}: {largest}" for key, _, largest in _amounts(facts)]
    less += [
        f"accelerators: {kind}:{largest}" if largest else f"no {_named(kind)}"
        for kind, count, largest in devices
        if count > largest
    ]
    if not less and facts.get("ranks_that_fit"):
        less = [f"num_nodes: {facts['ranks_that_fit']}"]
    if less:
        return f"ask for at most {', '.join(less)}, or add a node that is large enough to the fleet"
    share = "declare `sharing` of a node that has it, " if "part" in facts else ""
    return f"{share}ask for less, or add a node that is large enough to the fleet"


def _together(facts: Facts) -> str:
    """When each amount is there: not in one place, or not so often."""
    if facts.get("ranks_that_fit") or facts.get("topology"):
        where = {"node": "one node", "zone": "one zone"}.get(str(facts.get("topology")), "the whole fleet")
        fit = facts.get("ranks_that_fit", 0)
        return f"{facts.get('num_nodes', 1)} ranks where {where}, empty, holds {fit}"
    if "part" in facts:
        return f"{facts['part']}, and no node that has the rest lets a device be shared so"
    return "more than any one node has of everything at once"


def _amounts(facts: Facts) -> list[tuple[str, str, str]]:
    """(key, what is asked for, the most that there is) of what no node has enough of, in words."""
    found = []
    for key, name, words, form in (
        ("cpus", "cpu_milli", "cores", format_cpu),
        ("memory", "memory_bytes", "of memory", format_bytes),
    ):
        asked, largest = int(facts.get(name, 0)), int(facts.get(f"{name}_largest", 0))
        if asked > largest:
            found.append((key, f"{form(asked)} {words}", form(largest)))
    return found


def _devices(facts: Facts) -> list[tuple[str, int, int]]:
    kinds = sorted(name.removeprefix("devices:") for name in facts if name.startswith("devices:"))
    return [(kind, int(facts[f"devices:{kind}"]), int(facts[f"devices_largest:{kind}"])) for kind in kinds]


def _named(kind: str) -> str:
    return kind.replace(ALTERNATIVES, " or ")
