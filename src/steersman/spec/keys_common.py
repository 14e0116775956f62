"""Keys that declarations of several kinds share, and what a table of keys is written with.

`keys` says what the standing of a key means.
"""

from steersman.model.resources import Sharing
from steersman.model.units import Amount
from steersman.model.workload import PRIORITY_MAX, PRIORITY_MIN, SecretRef
from steersman.spec.accelerators import Accelerators, WantedAccelerators
from steersman.spec.measures import Dollars
from steersman.spec.nodes import BYTES_MAX
from steersman.spec.sections import Alternatives, Fields, Key, Nested, Origin, Section
from steersman.spec.shapes import (
    CPU,
    DURATION,
    MEMORY,
    Anything,
    Choice,
    Flag,
    Integer,
    ListOf,
    MapOf,
    Shape,
    Text,
)
from steersman.spec.values import (
    ARTIFACT_NAME,
    DECLARED_NAME,
    ENV_NAME,
    ENV_VALUE,
    LABEL_NAME,
    LABEL_VALUE,
    NAME,
    Infra,
    Secrets,
    Workdir,
)

CPU_MILLI_DEFAULT = 1_000
"""What a rank or replica gets when nobody says how many cores it needs: one."""
MEMORY_BYTES_DEFAULT = 512 * 2**20
"""What a rank or replica gets when nobody says how much memory it needs: 512 MiB."""
PRIORITY_WORDS = (("low", -100), ("normal", 0), ("high", 100), ("urgent", 500))
KINDS = ("job", "service", "gateway", "queue", "fleet")
KINDS_NOT_YET = ("batch", "stream", "pipeline", "federated", "edge")

_PRIORITY = Integer(what="a priority", least=PRIORITY_MIN, most=PRIORITY_MAX, words=PRIORITY_WORDS)
COMMAND = Text(what="a shell command", chars_max=BYTES_MAX, block=True)
LABEL_MAP = MapOf(what="labels", key=LABEL_NAME, value=LABEL_VALUE)
ANY = Anything()
FLAG = Flag()
PRICE = Dollars()

KIND: Key[str] = Key(
    name="kind",
    shape=Choice(what="a kind of declaration", options=tuple((kind, kind) for kind in KINDS)),
    note="`job` (the default), `service` (with `model` or `service`), `gateway`, `queue` or `fleet`",
    origin="steersman",
)
NAME_KEY: Key[str] = Key(name="name", shape=DECLARED_NAME, note="the name; without it, the file's name")

# --- resources of one rank or replica ------------------------------------------------------------

INFRA: Key[str] = Key(
    name="infra",
    shape=Infra(),
    note="where to run: `local`, this machine, `ray`, or one cluster: `ray/gpu`; anywhere when not given",
)
CPUS: Key[Amount] = Key(
    name="cpus", shape=CPU, note="cores of each rank or replica: `2`, `0.5`, `500m`, `4+`; 1 when not given"
)
MEMORY_KEY: Key[Amount] = Key(
    name="memory",
    shape=MEMORY,
    note="memory of each rank or replica: `16GB`, `16`, `24GB..40GB`; 512 MiB when not given",
)
ACCELERATORS: Key[WantedAccelerators] = Key(
    name="accelerators",
    shape=Accelerators(),
    note="accelerators of each rank or replica: `A100:8`, a part of one: `A100:0.5`; a list: any will do",
)
SHARING: Key[Sharing] = Key(
    name="sharing",
    shape=Choice(what="a mode", options=(("auto", "auto"), ("time-slice", "time-slice"), ("mig", "mig"))),
    note="how a part of an accelerator is made: `mig` keeps memory and faults apart, `time-slice` nothing; "
    "`auto`, as without it, is `mig` where there is one",
    origin="steersman",
)
MIG_PROFILE: Key[str] = Key(
    name="mig_profile",
    shape=Text(what="a MIG profile", pattern=r"[1-7]g\.[0-9]{1,3}gb", rule="as 3g.20gb"),
    note="this MIG instance of an accelerator: `3g.20gb`",
    origin="steersman",
)
RESOURCES_PRIORITY: Key[int] = Key(
    name="priority", shape=_PRIORITY, note="the same as `priority` beside `resources`"
)
USE_SPOT: Key[bool] = Key(
    name="use_spot",
    shape=FLAG,
    note="true: on spot capacity alone, as `spot_policy: spot`; false: never. A service does not choose yet",
)
DISK: Key[Amount] = Key(
    name="disk_size", shape=MEMORY, note="disk space is not reserved", standing="accepted"
)
PORTS: Key[tuple[str, ...]] = Key(
    name="ports",
    shape=ListOf(
        what="ports",
        item=Text(what="a port", pattern="[0-9]{1,5}(-[0-9]{1,5})?", rule="as 80 or 80-90"),
        single=True,
    ),
    note="a job opens its ports itself; a service is reached through the gateway",
    standing="accepted",
)
IMAGE: Key[None] = Key(
    name="image_id",
    shape=ANY,
    note="work runs in the environment of this machine, not in an image",
    standing="not-yet",
)
VOLUMES: Key[None] = Key(
    name="volumes", shape=ANY, note="the mounted files would not be found", standing="not-yet"
)


def accepted(name: str, note: str, shape: Shape[object] = ANY, origin: Origin = "skypilot") -> Key[object]:
    return Key(name=name, shape=shape, note=note, origin=origin, standing="accepted")


def not_yet(name: str, note: str, origin: Origin = "skypilot") -> Key[object]:
    return Key(name=name, shape=ANY, note=note, origin=origin, standing="not-yet")


RESOURCE_KEYS: tuple[Key[object], ...] = (
    CPUS,
    MEMORY_KEY,
    SHARING,
    MIG_PROFILE,
    ACCELERATORS,
    RESOURCES_PRIORITY,
    USE_SPOT,
    accepted("spot_recovery", "`retry` says when to try again"),
    accepted("job_recovery", "`retry` says when to try again"),
    accepted("accelerator_args", "accelerators are used as they are"),
    DISK,
    accepted("disk_tier", "there is one kind of disk"),
    accepted("network_tier", "there is one kind of network"),
    accepted("local_disk", "there is one kind of disk"),
    accepted("ephemeral_storage", "disk space is not reserved"),
    PORTS,
    accepted("labels", "labels of machines; `labels` beside `resources` are kept", LABEL_MAP),
    accepted("autostop", "this machine is not stopped when idle"),
    accepted("max_hourly_cost", "nothing is bounded by it: a queue's `budget` bounds money", PRICE),
    accepted("priority_class", "`priority` says who goes first"),
    IMAGE,
    VOLUMES,
    not_yet("instance_type", "the size it stands for is not known; write `cpus`, `memory`, `accelerators`"),
    not_yet("cloud", "no cloud is; write `infra: local`, or remove the key"),
    not_yet("region", "a place cannot be promised yet; remove the key to run on this machine"),
    not_yet("zone", "a place cannot be promised yet; remove the key to run on this machine"),
    not_yet("hooks", "a command at a stop or preemption would not run"),
)
_RESOURCE_WORDS = (
    ("gpus", "did you mean `accelerators`?"),
    ("gpu", "did you mean `accelerators`?"),
    ("disk", "did you mean `disk_size`?"),
    ("ram", "did you mean `memory`?"),
    ("spot", "did you mean `use_spot`?"),
    ("num_nodes", "`num_nodes` stands beside `resources`, not in it"),
)
ALTERNATIVE_INFRA: Key[str] = Key(name="infra", shape=Infra(anywhere=True), note=INFRA.note)
ALTERNATIVE = Section(
    name="alternative",
    title="an alternative of `resources`",
    keys=(ALTERNATIVE_INFRA, *RESOURCE_KEYS),
    elsewhere=_RESOURCE_WORDS,
    optional=True,
)
ANY_OF: Key[Fields | None] = Key(
    name="any_of", shape=Alternatives(section=ALTERNATIVE), note="alternatives: the first usable one is taken"
)
ORDERED: Key[Fields | None] = Key(
    name="ordered",
    shape=Alternatives(section=ALTERNATIVE),
    note="alternatives: the first usable one is taken",
)
RESOURCES_SECTION = Section(
    name="resources",
    title="`resources`",
    keys=(INFRA, *RESOURCE_KEYS, ANY_OF, ORDERED),
    elsewhere=_RESOURCE_WORDS,
)

# --- what jobs and services share ----------------------------------------------------------------------

INPUT_WORKLOAD: Key[str] = Key(
    name="workload", shape=NAME, note="whose artifact it is", origin="steersman", required=True
)
INPUT_ARTIFACT: Key[str] = Key(
    name="artifact", shape=ARTIFACT_NAME, note="which of its artifacts", origin="steersman", required=True
)
INPUT_SECTION = Section(name="input", title="an input", keys=(INPUT_WORKLOAD, INPUT_ARTIFACT))
DATA_SECTION = Section(
    name="data",
    title="`data`",
    keys=(
        accepted("size", "data is not yet a reason for a place", MEMORY, "steersman"),
        not_yet("residency", "it would not be enforced", origin="steersman"),
        not_yet("class", "it would not be enforced", origin="steersman"),
    ),
)
WORKDIR: Key[str] = Key(
    name="workdir", shape=Workdir(), note="the folder that is copied and in which commands run"
)
RESOURCES: Key[Fields] = Key(
    name="resources",
    shape=Nested(section=RESOURCES_SECTION, nullable=True),
    note="what each rank or replica needs",
)
ENVS: Key[tuple[tuple[str, str], ...]] = Key(
    name="envs",
    shape=MapOf(what="environment variables", key=ENV_NAME, value=ENV_VALUE),
    note="environment variables; values are taken as written",
)
SECRETS: Key[tuple[SecretRef, ...]] = Key(
    name="secrets",
    shape=Secrets(),
    note="variables filled from `steer secret set`: a list, or variable: secret",
)
SETUP: Key[str] = Key(name="setup", shape=COMMAND, note="the command that prepares each rank or replica")
STOP_DURATION: Key[int] = Key(
    name="stop_duration",
    shape=DURATION,
    note="the grace between notice and force; 30s when not given",
    origin="dstack",
)
QUEUE: Key[str] = Key(name="queue", shape=NAME, note="the queue it waits in", origin="steersman")
PRIORITY: Key[int] = Key(
    name="priority",
    shape=_PRIORITY,
    note="who goes first: -1000 to 1000, or low (-100), normal (0), high (100), urgent (500)",
    origin="steersman",
)
OWNER: Key[str] = Key(name="owner", shape=Text(what="an owner"), note="whose it is", origin="steersman")
LABELS: Key[tuple[tuple[str, str], ...]] = Key(
    name="labels", shape=LABEL_MAP, note="words to find it by", origin="steersman"
)
DATA: Key[Fields] = Key(
    name="data",
    shape=Nested(section=DATA_SECTION, nullable=True),
    note="what data it works on",
    origin="steersman",
)
