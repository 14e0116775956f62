"""The keys of a queue: its quotas, what it lends, borrows and may spend."""

import msgspec

from steersman.model.queue import ACCELERATORS, CPUS, MEMORY, Reclaim, Within
from steersman.spec.keys_common import KIND, NAME_KEY
from steersman.spec.nodes import Node
from steersman.spec.place import Place
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.shapes import DURATION, Choice, JsonSchema, ListOf, Positive, Text, scalar_text
from steersman.spec.values import NAME

QUOTAS_MAX = 64


class AmountText(msgspec.Struct, frozen=True, kw_only=True):
    """An amount whose unit depends on its resource: kept as its text."""

    what: str

    def read(self, node: Node, place: Place) -> str:
        return scalar_text(node, place, self.what)

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}


RESOURCE: Key[str] = Key(
    name="resource",
    shape=Text(
        what="a resource",
        pattern="[A-Za-z0-9]([A-Za-z0-9._-]{0,62})",
        rule=f"write {CPUS}, {MEMORY}, {ACCELERATORS} or a kind of accelerator",
    ),
    note=f"`{CPUS}`, `{MEMORY}`, `{ACCELERATORS}` (of any kind) or a kind: `A100`",
    origin="steersman",
    required=True,
)
NOMINAL: Key[str] = Key(
    name="nominal_quota",
    shape=AmountText(what="an amount"),
    note="what is its own: cores, memory or accelerators; 0 for nothing",
    origin="steersman",
    required=True,
)
BORROWING: Key[str] = Key(
    name="borrowing_limit",
    shape=AmountText(what="an amount"),
    note="how much more than that it may hold; when not given, all that the cohort lends",
    origin="steersman",
)
LENDING: Key[str] = Key(
    name="lending_limit",
    shape=AmountText(what="an amount"),
    note="how much of it others may borrow; when not given, all of it",
    origin="steersman",
)
QUOTA_SECTION = Section(name="quota", title="a quota", keys=(RESOURCE, NOMINAL, BORROWING, LENDING))

USD: Key[str] = Key(
    name="usd", shape=Positive(what="an amount of dollars"), note="dollars", origin="steersman"
)
GPU_HOURS: Key[str] = Key(
    name="gpu_hours",
    shape=Positive(what="a number of hours"),
    note="hours of one accelerator of any kind",
    origin="steersman",
)
PERIOD: Key[int] = Key(
    name="period",
    shape=DURATION,
    note="how long it is for; then it begins anew; when not given, once and for all",
    origin="steersman",
)
BUDGET_SECTION = Section(name="budget", title="a budget", keys=(USD, GPU_HOURS, PERIOD))

RECLAIM: Key[Reclaim] = Key(
    name="reclaim_within_cohort",
    shape=Choice(
        what="a rule",
        options=(("any", "any"), ("lower-priority", "lower-priority"), ("never", "never")),
    ),
    note="from whom it takes back what others borrow: `any` (the default), `lower-priority`, `never`",
    origin="steersman",
)
WITHIN: Key[Within] = Key(
    name="within_queue",
    shape=Choice(what="a rule", options=(("lower-priority", "lower-priority"), ("never", "never"))),
    note="who yields to its own work: `lower-priority` (the default) or `never`",
    origin="steersman",
)
PREEMPTION_SECTION = Section(name="preemption", title="preemption", keys=(RECLAIM, WITHIN))

COHORT: Key[str] = Key(
    name="cohort", shape=NAME, note="queues of one cohort lend one another", origin="steersman"
)
WEIGHT: Key[str] = Key(
    name="weight",
    shape=Positive(what="a weight"),
    note="its part beside other queues; 1 when not given",
    origin="steersman",
)
QUOTAS: Key[tuple[Fields, ...]] = Key(
    name="quotas",
    shape=ListOf(what="quotas", item=Nested(section=QUOTA_SECTION), items_max=QUOTAS_MAX),
    note="one for each resource; what has none is not limited",
    origin="steersman",
)
BUDGET: Key[Fields] = Key(
    name="budget", shape=Nested(section=BUDGET_SECTION), note="what it may spend", origin="steersman"
)
PREEMPTION: Key[Fields] = Key(
    name="preemption", shape=Nested(section=PREEMPTION_SECTION), note="who yields to it", origin="steersman"
)
QUEUE_SECTION = Section(
    name="queue", title="a queue", keys=(KIND, NAME_KEY, COHORT, WEIGHT, QUOTAS, BUDGET, PREEMPTION)
)
