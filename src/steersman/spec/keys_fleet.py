"""The keys of a fleet and of its nodes."""

from steersman.model.resources import SharingMode
from steersman.model.units import Amount
from steersman.spec.accelerators import Kinds, NodeAccelerators
from steersman.spec.keys_common import FLAG, KIND, LABEL_MAP, NAME_KEY, PRICE
from steersman.spec.measures import Span
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.shapes import CPU, MEMORY, Choice, Integer, ListOf, Text
from steersman.spec.values import NAME, RUNTIME_ENV, SECRET_PATTERN, Infra

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
NODE_INFRA: Key[str] = Key(
    name="infra", shape=Infra(node=True), note="`local`: this machine, or a part of it", origin="steersman"
)
NODE_SECTION = Section(
    name="node",
    title="a node",
    keys=(
        NODE_NAME,
        NODE_INFRA,
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
)

# --- clusters ----------------------------------------------------------------------------------------

CLUSTERS_MAX = 64
LEASE_MS_MIN, LEASE_MS_MAX = 5_000, 600_000
_FOLDER = Text(what="a folder", pattern="/[^\0]*", rule="write an absolute path", chars_max=4_096)

CLUSTER_NAME: Key[str] = Key(
    name="name", shape=NAME, note="the cluster's name", origin="steersman", required=True
)
CLUSTER_INFRA: Key[str] = Key(
    name="infra",
    shape=Choice(what="an engine", options=(("ray", "ray"),)),
    note="the engine that its machines have joined: `ray`",
    origin="steersman",
    required=True,
)
ADDRESS: Key[str] = Key(
    name="address",
    shape=Text(
        what="the address of a cluster's head",
        pattern=r"(?:ray://)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}",
        rule="write `HOST:6379`, or `ray://HOST:10001` from a machine that is not of the cluster",
    ),
    note="where its head is reached: `HOST:6379` from one of its machines, `ray://HOST:10001` from elsewhere",
    origin="steersman",
    required=True,
)
TOKEN: Key[str] = Key(
    name="token",
    shape=Text(what="the name of a secret", pattern=SECRET_PATTERN, rule="`steer secret set NAME` makes one"),
    note="the name of the secret that holds its token",
    origin="steersman",
)
ALLOW_OPEN: Key[bool] = Key(
    name="allow_open",
    shape=FLAG,
    note="true: use it although whoever reaches it can run programs there: it asks for no token",
    origin="steersman",
)
PYTHON: Key[str] = Key(
    name="python",
    shape=_FOLDER,
    note="an interpreter here that has the cluster's version of Ray; Steersman's own when not given",
    origin="steersman",
)
RUNTIME_ENV_KEY: Key[str] = Key(
    name="runtime_env",
    shape=RUNTIME_ENV,
    note="what Ray makes the environment there of: `{pip: [torch]}`, `uv`, `conda`, `env_vars` …",
    origin="steersman",
)
NODE_DIR: Key[str] = Key(
    name="node_dir",
    shape=_FOLDER,
    note="the folder for Steersman's files on its machines; their temporary one when not given",
    origin="steersman",
)
SHARED_DIR: Key[str] = Key(
    name="shared_dir",
    shape=_FOLDER,
    note="a folder that its machines and this one share: checkpoints go there and are not copied",
    origin="steersman",
)
LEASE: Key[int] = Key(
    name="lease",
    shape=Span(what="a lease", least_ms=LEASE_MS_MIN, most_ms=LEASE_MS_MAX),
    note="how long a program lives on a machine that does not reach the cluster's head; 30s when not given",
    origin="steersman",
)
CLUSTER_SECTION = Section(
    name="cluster",
    title="a cluster",
    keys=(
        CLUSTER_NAME,
        CLUSTER_INFRA,
        ADDRESS,
        TOKEN,
        ALLOW_OPEN,
        PYTHON,
        RUNTIME_ENV_KEY,
        NODE_DIR,
        SHARED_DIR,
        LEASE,
        SITE,
        ZONE,
        POOL,
        NODE_SPOT,
        NODE_PRICE,
    ),
    elsewhere=(
        ("cpus", "the nodes of a cluster are found, not declared: leave it out"),
        ("memory", "the nodes of a cluster are found, not declared: leave it out"),
        ("accelerators", "the nodes of a cluster are found, not declared: leave it out"),
        ("count", "the nodes of a cluster are found, not declared: leave it out"),
        ("nodes", "the nodes of a cluster are found, not declared: leave it out"),
        ("labels", "a node's labels are those that Ray gives it: `ray start --labels`"),
        ("price", "did you mean `price_usd_per_hour`?"),
        ("spot", "did you mean `use_spot`?"),
        ("url", "did you mean `address`?"),
        ("working_dir", "give a job its `workdir`"),
    ),
)
CLUSTERS: Key[tuple[Fields, ...]] = Key(
    name="clusters",
    shape=ListOf(what="clusters", item=Nested(section=CLUSTER_SECTION), items_max=CLUSTERS_MAX),
    note="clusters whose nodes are found",
    origin="steersman",
)
FLEET_SECTION = Section(name="fleet", title="a fleet", keys=(KIND, NAME_KEY, NODES, CLUSTERS))
