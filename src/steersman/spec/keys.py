"""The one table of everything a user may write, with where each key comes from and how far it is honoured.

Theory: parser, JSON Schema and reference documentation are made from `SECTIONS`. A key is

* *honoured* when it has its effect;
* *accepted* when it only tunes where, how or how cheaply work runs, or states a wish: the work is still the
  work the user asked for, so a file for SkyPilot or dstack runs, with a warning that names the key;
* *not-yet* when going on without it would break what the user relies on: another program environment
  (`image_id`), missing files (`file_mounts`, `volumes`), a size that is named elsewhere (`instance_type`), a
  law (`data.residency`, `region`), a limit of money (`budget`), a duty at an end (`hooks`). It is refused,
  with the stable code ``not-yet``.
"""

from collections.abc import Iterator

from steersman.model.ids import WorkloadName
from steersman.model.units import Amount
from steersman.model.workload import PRIORITY_MAX, PRIORITY_MIN, Retry, RetryEvent, SecretRef
from steersman.spec.nodes import BYTES_MAX
from steersman.spec.sections import Alternatives, Fields, Key, Nested, Origin, Section
from steersman.spec.shapes import (
    CPU,
    DURATION,
    MEMORY,
    Anything,
    Choice,
    DurationOrAuto,
    DurationOrOff,
    Flag,
    Integer,
    ListOf,
    MapOf,
    Positive,
    Shape,
    Text,
)
from steersman.spec.values import (
    ARTIFACT_NAME,
    DECLARED_NAME,
    ENV_NAME,
    ENV_VALUE,
    INPUT_NAME,
    LABEL_NAME,
    LABEL_VALUE,
    NAME,
    Accelerators,
    Infra,
    InputSource,
    Kinds,
    RelativePath,
    RetryRule,
    Secrets,
    Workdir,
)

CPU_MILLI_DEFAULT = 1_000
"""What a rank gets when nobody says how many cores it needs: one."""
MEMORY_BYTES_DEFAULT = 512 * 2**20
"""What a rank gets when nobody says how much memory it needs: 512 MiB."""
NUM_NODES_MAX = 10_000
"""The most ranks of one job."""
FLEET_COUNT_MAX = 100_000
"""The most nodes of one fleet."""
ATTEMPTS_MAX = 1_000
KEEP_MAX = 1_000
PRIORITY_WORDS = (("low", -100), ("normal", 0), ("high", 100), ("urgent", 500))
RETRY_EVENTS: tuple[RetryEvent, ...] = ("error", "interruption", "no-capacity")
KINDS = ("job", "fleet")
KINDS_NOT_YET = ("service", "batch", "stream", "pipeline", "federated", "edge")

_PRIORITY = Integer(what="a priority", least=PRIORITY_MIN, most=PRIORITY_MAX, words=PRIORITY_WORDS)
_COMMAND = Text(what="a shell command", chars_max=BYTES_MAX, block=True)
_LABELS = MapOf(what="labels", key=LABEL_NAME, value=LABEL_VALUE)
_ANY = Anything()
_FLAG = Flag()
_PRICE = Positive(what="a price in dollars an hour")

KIND: Key[str] = Key(
    name="kind",
    shape=Choice(what="a kind of declaration", options=tuple((kind, kind) for kind in KINDS)),
    note="what is declared: `job` (the default) or `fleet`",
    origin="steersman",
)
NAME_KEY: Key[str] = Key(name="name", shape=DECLARED_NAME, note="the name; without it, the file's name")

# --- resources of one rank ---------------------------------------------------------------------------

INFRA: Key[str] = Key(name="infra", shape=Infra(), note="where to run: `local`, this machine")
CPUS: Key[Amount] = Key(
    name="cpus", shape=CPU, note="cores of each rank: `2`, `0.5`, `500m`, `4+`; 1 when not given"
)
MEMORY_KEY: Key[Amount] = Key(
    name="memory",
    shape=MEMORY,
    note="memory of each rank: `16GB`, `16`, `24GB..40GB`; 512 MiB when not given",
)
ACCELERATORS: Key[Kinds] = Key(
    name="accelerators", shape=Accelerators(), note="whole accelerators of each rank: `A100:8`"
)
RESOURCES_PRIORITY: Key[int] = Key(name="priority", shape=_PRIORITY, note="the same as `priority` of the job")
_DISK: Key[Amount] = Key(
    name="disk_size", shape=MEMORY, note="disk space is not reserved", standing="accepted"
)
_PORTS: Key[tuple[str, ...]] = Key(
    name="ports",
    shape=ListOf(
        what="ports",
        item=Text(what="a port", pattern="[0-9]{1,5}(-[0-9]{1,5})?", rule="as 80 or 80-90"),
        single=True,
    ),
    note="a job opens its ports itself, on this machine",
    standing="accepted",
)
_IMAGE: Key[None] = Key(
    name="image_id",
    shape=_ANY,
    note="a job runs in the environment of this machine, not in an image",
    standing="not-yet",
)
_VOLUMES: Key[None] = Key(
    name="volumes", shape=_ANY, note="a job would not find the mounted files", standing="not-yet"
)


def _accepted(name: str, note: str, shape: Shape[object] = _ANY, origin: Origin = "skypilot") -> Key[object]:
    return Key(name=name, shape=shape, note=note, origin=origin, standing="accepted")


def _not_yet(name: str, note: str, origin: Origin = "skypilot") -> Key[object]:
    return Key(name=name, shape=_ANY, note=note, origin=origin, standing="not-yet")


_RESOURCE_KEYS: tuple[Key[object], ...] = (
    CPUS,
    MEMORY_KEY,
    ACCELERATORS,
    RESOURCES_PRIORITY,
    _accepted("use_spot", "this machine has no spot price", _FLAG),
    _accepted("spot_recovery", "`retry` says when to try again"),
    _accepted("job_recovery", "`retry` says when to try again"),
    _accepted("accelerator_args", "accelerators are used as they are"),
    _DISK,
    _accepted("disk_tier", "there is one kind of disk"),
    _accepted("network_tier", "there is one kind of network"),
    _accepted("local_disk", "there is one kind of disk"),
    _accepted("ephemeral_storage", "disk space is not reserved"),
    _PORTS,
    _accepted("labels", "labels of machines; `labels` of the job are kept", _LABELS),
    _accepted("autostop", "this machine is not stopped when idle"),
    _accepted("max_hourly_cost", "this machine costs nothing an hour", _PRICE),
    _accepted("priority_class", "`priority` says who goes first"),
    _IMAGE,
    _VOLUMES,
    _not_yet("instance_type", "the size it stands for is not known; write `cpus`, `memory`, `accelerators`"),
    _not_yet("cloud", "no cloud is; write `infra: local`, or remove the key"),
    _not_yet("region", "a place cannot be promised yet; remove the key to run on this machine"),
    _not_yet("zone", "a place cannot be promised yet; remove the key to run on this machine"),
    _not_yet("hooks", "a command at a stop or preemption would not run"),
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
    keys=(ALTERNATIVE_INFRA, *_RESOURCE_KEYS),
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
    keys=(INFRA, *_RESOURCE_KEYS, ANY_OF, ORDERED),
    elsewhere=_RESOURCE_WORDS,
)

# --- retry, checkpoint, inputs, data ----------------------------------------------------------------

ON_EVENTS: Key[tuple[RetryEvent, ...]] = Key(
    name="on_events",
    shape=ListOf(
        what="events", item=Choice(what="an event", options=tuple((event, event) for event in RETRY_EVENTS))
    ),
    note="which ends are tried again; `interruption` when not given",
    origin="dstack",
)
ATTEMPTS: Key[int] = Key(
    name="attempts",
    shape=Integer(what="a number of tries", least=1, most=ATTEMPTS_MAX),
    note="how many tries, the first included",
    origin="steersman",
)
RETRY_DURATION: Key[int] = Key(
    name="duration", shape=DURATION, note="how long to go on trying", origin="dstack"
)
_CODES = ListOf(what="exit codes", item=Integer(what="an exit code of a failure", least=1, most=255))
CODES_RETRY: Key[tuple[int, ...]] = Key(
    name="retry", shape=_CODES, note="exit codes that are tried again in any case", origin="steersman"
)
CODES_FATAL: Key[tuple[int, ...]] = Key(
    name="fatal", shape=_CODES, note="exit codes that end the job at once", origin="steersman"
)
CODES_SECTION = Section(name="exit_codes", title="`retry.exit_codes`", keys=(CODES_RETRY, CODES_FATAL))
EXIT_CODES: Key[Fields] = Key(
    name="exit_codes", shape=Nested(section=CODES_SECTION), note="rules for exit codes", origin="steersman"
)
RETRY_SECTION = Section(
    name="retry",
    title="`retry`",
    keys=(ON_EVENTS, ATTEMPTS, RETRY_DURATION, EXIT_CODES),
    elsewhere=(("max_attempts", "did you mean `attempts`?"), ("limit", "did you mean `duration`?")),
)

INTERVAL: Key[int | None] = Key(
    name="interval",
    shape=DurationOrAuto(),
    note="time between checkpoints; `auto` when not given",
    origin="steersman",
)
INTERVAL_MIN: Key[int] = Key(
    name="min", shape=DURATION, note="the shortest interval that `auto` may choose", origin="steersman"
)
INTERVAL_MAX: Key[int] = Key(
    name="max", shape=DURATION, note="the longest interval that `auto` may choose", origin="steersman"
)
KEEP: Key[int] = Key(
    name="keep",
    shape=Integer(what="a number of checkpoints", least=1, most=KEEP_MAX),
    note="how many of the newest checkpoints to keep; 3 when not given",
    origin="steersman",
)
CHECKPOINT_SECTION = Section(
    name="checkpoint",
    title="`checkpoint`",
    keys=(INTERVAL, INTERVAL_MIN, INTERVAL_MAX, KEEP),
    elsewhere=(("every", "did you mean `interval`?"),),
)

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
        _accepted("size", "data is not yet a reason for a place", MEMORY, "steersman"),
        _not_yet("residency", "it would not be enforced", origin="steersman"),
        _not_yet("class", "it would not be enforced", origin="steersman"),
    ),
)

# --- job --------------------------------------------------------------------------------------------

WORKDIR: Key[str] = Key(
    name="workdir", shape=Workdir(), note="the folder that is copied and in which commands run"
)
NUM_NODES: Key[int] = Key(
    name="num_nodes",
    shape=Integer(what="a number of ranks", least=1, most=NUM_NODES_MAX),
    note="how many ranks start together; 1 when not given",
)
RESOURCES: Key[Fields] = Key(
    name="resources", shape=Nested(section=RESOURCES_SECTION, nullable=True), note="what each rank needs"
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
SETUP: Key[str] = Key(name="setup", shape=_COMMAND, note="the command that prepares each rank")
RUN: Key[str] = Key(name="run", shape=_COMMAND, note="the command that does the work", required=True)
INPUTS: Key[tuple[tuple[str, tuple[WorkloadName, str]], ...]] = Key(
    name="inputs",
    shape=MapOf(what="inputs", key=INPUT_NAME, value=InputSource(section=INPUT_SECTION)),
    note="artifacts of other workloads: `NAME: workload/artifact`",
    origin="steersman",
)
ARTIFACTS: Key[tuple[tuple[str, str], ...]] = Key(
    name="artifacts",
    shape=MapOf(what="artifacts", key=ARTIFACT_NAME, value=RelativePath()),
    note="files the job leaves in STEERSMAN_OUTPUT_DIR: `NAME: path`",
    origin="steersman",
)
MAX_DURATION: Key[int | None] = Key(
    name="max_duration",
    shape=DurationOrOff(),
    note="the longest time a run may take; `off` is no limit",
    origin="dstack",
)
STOP_DURATION: Key[int] = Key(
    name="stop_duration",
    shape=DURATION,
    note="the grace between notice and force; 30s when not given",
    origin="dstack",
)
RETRY: Key[Retry | Fields] = Key(
    name="retry",
    shape=RetryRule(section=RETRY_SECTION, every=RETRY_EVENTS),
    note="when to try again: true, false, or its keys",
    origin="dstack",
)
CHECKPOINT: Key[Fields] = Key(
    name="checkpoint",
    shape=Nested(section=CHECKPOINT_SECTION),
    note="the job saves its progress",
    origin="steersman",
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
    name="labels", shape=_LABELS, note="words to find it by", origin="steersman"
)
DATA: Key[Fields] = Key(
    name="data",
    shape=Nested(section=DATA_SECTION, nullable=True),
    note="what data it works on",
    origin="steersman",
)

JOB_SECTION = Section(
    name="job",
    title="a job",
    keys=(
        KIND,
        NAME_KEY,
        WORKDIR,
        NUM_NODES,
        RESOURCES,
        ENVS,
        SECRETS,
        SETUP,
        RUN,
        INPUTS,
        ARTIFACTS,
        MAX_DURATION,
        STOP_DURATION,
        RETRY,
        CHECKPOINT,
        QUEUE,
        PRIORITY,
        OWNER,
        LABELS,
        DATA,
        _DISK,
        _PORTS,
        _accepted("outputs", "`artifacts` says what a job leaves behind"),
        _accepted("max_price", "this machine costs nothing an hour", _PRICE, "dstack"),
        _accepted("idle_duration", "this machine is not stopped when idle", origin="dstack"),
        _accepted("utilization_policy", "a job is not ended for idle accelerators", origin="dstack"),
        _accepted("spot_policy", "this machine has no spot price", origin="dstack"),
        _accepted("deadline", "it does not yet move a job forward", origin="steersman"),
        _accepted("slo", "a job has no objective yet", origin="steersman"),
        _accepted("scale", "a job keeps its `num_nodes`", origin="steersman"),
        _accepted("carbon", "carbon is not yet a reason for a place or a time", origin="steersman"),
        _IMAGE,
        _VOLUMES,
        _not_yet("file_mounts", "a job would not find the files; use `workdir`, or `inputs`"),
        _not_yet("service", "declare a job, or wait for `kind: service`"),
        _not_yet("pool", "declare a fleet"),
        _not_yet("config", "it may hold hooks and options of containers"),
        _not_yet("experimental", "it may change any setting of SkyPilot"),
        _not_yet("event_callback", "the command would not be called"),
        _not_yet("budget", "a limit of money would not be enforced", origin="steersman"),
    ),
    elsewhere=(
        ("command", "did you mean `run`?"),
        ("commands", "did you mean `run`?"),
        ("script", "did you mean `run`?"),
        ("nodes", "did you mean `num_nodes`? (`nodes` belongs to `kind: fleet`)"),
        ("image", "did you mean `image_id`?"),
        ("type", "did you mean `kind`?"),
        ("cpu", "`cpus` belongs under `resources`"),
        ("gpu", "`accelerators` belongs under `resources`"),
        ("gpus", "`accelerators` belongs under `resources`"),
        *((key.name, f"`{key.name}` belongs under `resources`") for key in (INFRA, *_RESOURCE_KEYS)),
    ),
)

# --- fleet ------------------------------------------------------------------------------------------

NODE_NAME: Key[str] = Key(name="name", shape=NAME, note="the node's name", origin="steersman", required=True)
NODE_CPUS: Key[Amount] = Key(
    name="cpus", shape=CPU, note="cores that may be handed out", origin="steersman", required=True
)
NODE_MEMORY: Key[Amount] = Key(
    name="memory", shape=MEMORY, note="memory that may be handed out", origin="steersman", required=True
)
NODE_ACCELERATORS: Key[Kinds] = Key(
    name="accelerators",
    shape=Accelerators(all_kinds=True),
    note="its accelerators: `A100:8`",
    origin="steersman",
)
NODE_LABELS: Key[tuple[tuple[str, str], ...]] = Key(
    name="labels", shape=_LABELS, note="words to find it by", origin="steersman"
)
SITE: Key[str] = Key(
    name="site", shape=NAME, note="where it stands; `local` when not given", origin="steersman"
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
    keys=(NODE_NAME, INFRA, NODE_CPUS, NODE_MEMORY, NODE_ACCELERATORS, NODE_LABELS, SITE, COUNT),
)
NODES: Key[tuple[Fields, ...]] = Key(
    name="nodes",
    shape=ListOf(what="nodes", item=Nested(section=NODE_SECTION), items_max=FLEET_COUNT_MAX),
    note="what may be used",
    origin="steersman",
    required=True,
)
FLEET_SECTION = Section(name="fleet", title="a fleet", keys=(KIND, NAME_KEY, NODES))

SECTIONS = (
    JOB_SECTION,
    RESOURCES_SECTION,
    ALTERNATIVE,
    RETRY_SECTION,
    CODES_SECTION,
    CHECKPOINT_SECTION,
    INPUT_SECTION,
    DATA_SECTION,
    FLEET_SECTION,
    NODE_SECTION,
)


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    """The table for documentation: section, key, standing, origin, note."""
    for section in SECTIONS:
        for key in section.keys:
            yield section.name, key.name, key.standing, key.origin, key.note
