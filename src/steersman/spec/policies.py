"""A policy as a file: the fields of `model.policy.Policy` as keys, read with line numbers.

Theory: the record is the table. A key is a field and its shape follows from the field's type, so that a field
which the policy gains can be written at once. A key that is not written keeps its default.
"""

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from steersman.model.errors import SpecError
from steersman.model.policy import Policy
from steersman.spec.nodes import ListNode, MapNode, Node, ScalarNode, compose, describe, is_null
from steersman.spec.place import Place, show

FIELDS = {field.name: field for field in msgspec.structs.fields(Policy)}
NOTES: Mapping[str, str] = {
    "backoff_ms_base": "wait before the first retry of a job that failed; doubles with each failure in a row",
    "backoff_ms_max": "the longest wait before a retry",
    "crash_loop_failures": "failures in a row, each soon after its start, that make a crash loop",
    "crash_loop_run_ms": "what is soon after its start",
    "preempt_run_ms_min": "a run is not preempted before it has run so long",
    "preempt_attempts_per_cycle": "waiting jobs for which a cycle looks for victims; 0: nobody yields",
    "preempt_victims_max": "how many runs may yield to one job",
    "preempt_nodes_max": "how many nodes are looked at for one rank that needs others to yield",
    "starts_per_cycle": "runs that one cycle starts; the next follows at once",
    "backfill_patience_ms": "wait after which room is kept though nobody knows its time; null: never",
    "interruption_mtbf_ms_prior": "time between interruptions where none was seen; weighs as much as one",
    "spot_period_ms": "how often a job that chooses between spot and on-demand is judged",
    "launch_ms_prior": "what a launch is taken to last until longer ones were seen",
    "launch_ms_spare": "kept beside it for what happens between a decision and its effect",
    "fair_half_life_ms": "what a queue used so long ago counts half as much as what it uses now",
    "order": "who goes first within a priority, on accelerators: `age`, or `gittins` by learned durations",
    "order_period_ms": "by `gittins`, how often jobs take turns at most",
    "restart_ms_prior": "by `gittins`, what a restart is taken to cost",
}
"""What each key does, in a line."""
NUMBER_MAX = 10**15
"""The largest number of a policy: of milliseconds, some 30,000 years."""
AT_LEAST_ONE = frozenset({"starts_per_cycle", "order_period_ms"})
"""Fields with which nothing could ever happen at 0."""


def parse_policy(text: str, source: str) -> Policy:
    """The policy that a text declares; `source` names it in messages. Raises SpecError and nothing else."""
    documents = compose(text, source)
    if len(documents) != 1:
        found = f"the file holds {len(documents)} documents" if documents else "the file is empty"
        raise SpecError(
            f"{found}, and a policy is one mapping",
            hint="write its keys, as `backoff_ms_base: 500`",
            source=source,
        )
    (node,) = documents
    place = Place(source=source, warnings=[])
    if not isinstance(node, MapNode):
        message = f"a policy is a mapping of keys, and this is {describe(node)}"
        raise place.error(node.line, message, f"write keys, as `{next(iter(FIELDS))}: 500`")
    given: dict[str, Any] = {}
    for entry in node.entries:
        name = entry.key.text
        if name not in FIELDS:
            message = f"{show(name)} is not a key of a policy"
            raise place.at(name).error(entry.key.line, message, _nearest(name))
        given[name] = _value(name, entry.value, place.at(name))
    policy = Policy(**given)
    if policy.backoff_ms_base > policy.backoff_ms_max:
        line = next(entry.key.line for entry in node.entries if entry.key.text.startswith("backoff_ms"))
        message = f"the first back-off, {policy.backoff_ms_base:,} ms, is longer than the longest"
        raise place.at("backoff_ms_base").error(line, message, f"backoff_ms_max is {policy.backoff_ms_max:,}")
    return policy


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), FIELDS, n=1)
    return f"did you mean `{near[0]}`?" if near else f"the keys are: {', '.join(FIELDS)}"


def _value(name: str, node: Node, place: Place) -> Any:
    """What stands there, as the type that the field has."""
    kind, plain = FIELDS[name].type, _plain(node)
    if isinstance(plain, str) and "_" in plain and kind in (int, int | None):
        plain = ""  # Python's own 1_000 is not a number of YAML
    try:
        value = msgspec.convert(plain, kind, strict=False)
    except msgspec.ValidationError as error:
        wanted = "a whole number is wanted" if kind is int else str(error).lower()
        hint = f"the default is {show(str(FIELDS[name].default))}"
        raise place.error(node.line, f"{describe(node)} does not fit: {wanted}", hint) from error
    for number in _numbers(value):
        least = 1 if name in AT_LEAST_ONE else 0
        if not least <= number <= NUMBER_MAX:
            hint = f"write a number from {least} to {NUMBER_MAX:,}; the default is {FIELDS[name].default!r}"
            raise place.error(node.line, f"{number} is out of range", hint)
    return value


def _plain(node: Node) -> Any:
    """A node without its lines."""
    if isinstance(node, ScalarNode):
        return None if is_null(node) else node.text
    if isinstance(node, ListNode):
        return [_plain(item) for item in node.items]
    return {entry.key.text: _plain(entry.value) for entry in node.entries}


def _numbers(value: Any) -> list[float]:
    """Every number in a value."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return []
    if isinstance(value, int | float):
        return [value]
    return [number for item in value for number in _numbers(item)]
