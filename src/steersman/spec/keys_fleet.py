"""The keys of a fleet and of its nodes."""

from steersman.model.resources import SharingMode
from steersman.model.units import Amount
from steersman.spec.accelerators import Kinds, NodeAccelerators
from steersman.spec.keys_common import FLAG, INFRA, KIND, LABEL_MAP, NAME_KEY, PRICE
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.shapes import CPU, MEMORY, Choice, Integer, ListOf
from steersman.spec.values import NAME

FLEET_COUNT_MAX = 100_000
"""The most nodes of one fleet."""

NODE_NAME: Key[str] = Key(name="name", shape=NAME, note="the node's name", origin="steersman", required=True)
NODE_CPUS: Key[Amount] = Key(
    name="cpus", shape=CPU, note="cores that may be handed out", origin="steersman", required=True
)
NODE_MEMORY: Key[Amount] = Key(
    name="memory", shape=MEMORY, note="memory that may be handed out", origin="steersman", required=True
)
NODE_ACCELERATORS: Key[Kinds] = Key(
    name="accelerators",
    shape=NodeAccelerators(),
    note="its accelerators: `A100:8`",
    origin="steersman",
)
NODE_SHARING: Key[tuple[SharingMode, ...]] = Key(
    name="sharing",
    shape=ListOf(
        what="modes",
        item=Choice(what="a mode", options=(("time-slice", "time-slice"), ("mig", "mig"))),
        single=True,
    ),
    note="how its accelerators may be shared: `time-slice`, `mig`, or `[]`: not at all; "
    "without it GPUs by `time-slice`",
    origin="steersman",
)
NODE_LABELS: Key[tuple[tuple[str, str], ...]] = Key(
    name="labels", shape=LABEL_MAP, note="words to find it by", origin="steersman"
)
SITE: Key[str] = Key(
    name="site", shape=NAME, note="where it stands; `local` when not given", origin="steersman"
)
ZONE: Key[str] = Key(name="zone", shape=NAME, note="its part of the site", origin="skypilot")
POOL: Key[str] = Key(
    name="pool",
    shape=NAME,
    note="the like nodes that it is one of; those of one entry when it has a price or is spot",
    origin="steersman",
)
NODE_SPOT: Key[bool] = Key(
    name="use_spot", shape=FLAG, note="true: it may be taken away, and takes only jobs that allow that"
)
NODE_PRICE: Key[int] = Key(
    name="price_usd_per_hour",
    shape=PRICE,
    note="what an hour costs, in dollars; without it the price is not known, which is not 0",
    origin="steersman",
)
COUNT: Key[int] = Key(
    name="count",
    shape=Integer(what="a number of nodes", least=1, most=FLEET_COUNT_MAX),
    note="that many alike, named `<name>-0` and on",
    origin="steersman",
)
NODE_SECTION = Section(
    name="node",
    title="a node",
    keys=(
        NODE_NAME,
        INFRA,
        NODE_CPUS,
        NODE_MEMORY,
        NODE_ACCELERATORS,
        NODE_SHARING,
        NODE_LABELS,
        SITE,
        ZONE,
        POOL,
        NODE_SPOT,
        NODE_PRICE,
        COUNT,
    ),
    elsewhere=(
        ("market", "did you mean `use_spot: true`?"),
        ("spot", "did you mean `use_spot`?"),
        ("price", "did you mean `price_usd_per_hour`?"),
    ),
)
NODES: Key[tuple[Fields, ...]] = Key(
    name="nodes",
    shape=ListOf(what="nodes", item=Nested(section=NODE_SECTION), items_max=FLEET_COUNT_MAX),
    note="what may be used",
    origin="steersman",
    required=True,
)
FLEET_SECTION = Section(name="fleet", title="a fleet", keys=(KIND, NAME_KEY, NODES))
