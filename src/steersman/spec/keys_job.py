"""The keys of a job."""

from steersman.model.ids import WorkloadName
from steersman.model.workload import Retry, RetryEvent, SpotPolicy, Topology
from steersman.spec.keys_common import (
    COMMAND,
    DATA,
    DISK,
    ENVS,
    IMAGE,
    INFRA,
    INPUT_SECTION,
    KIND,
    LABELS,
    NAME_KEY,
    OWNER,
    PORTS,
    PRICE,
    PRIORITY,
    QUEUE,
    RESOURCE_KEYS,
    RESOURCES,
    SECRETS,
    SETUP,
    STOP_DURATION,
    VOLUMES,
    WORKDIR,
    accepted,
    not_yet,
)
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.shapes import DURATION, Choice, DurationOrAuto, DurationOrOff, Integer, ListOf, MapOf
from steersman.spec.values import ARTIFACT_NAME, INPUT_NAME, InputSource, RelativePath, RetryRule

NUM_NODES_MAX = 10_000
"""The most ranks of one job."""
SERVICE_ADVICE = "it belongs to a service: write `kind: service`, or remove it"
ATTEMPTS_MAX = 1_000
KEEP_MAX = 1_000
RETRY_EVENTS: tuple[RetryEvent, ...] = ("error", "interruption", "no-capacity")

# --- retry, checkpoint --------------------------------------------------------------------------------

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

# --- job ------------------------------------------------------------------------------------------

NUM_NODES: Key[int] = Key(
    name="num_nodes",
    shape=Integer(what="a number of ranks", least=1, most=NUM_NODES_MAX),
    note="how many ranks start together; 1 when not given",
)
RUN: Key[str] = Key(name="run", shape=COMMAND, note="the command that does the work", required=True)
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
TOPOLOGY: Key[Topology] = Key(
    name="topology",
    shape=Choice(what="a topology", options=(("any", ""), ("zone", "zone"), ("node", "node"))),
    note="where all ranks must be together: `node`, `zone`, or `any`, which is how it is without it",
    origin="steersman",
)
SPOT_POLICY: Key[SpotPolicy] = Key(
    name="spot_policy",
    shape=Choice(
        what="a spot policy",
        options=(("on-demand", "on-demand"), ("spot", "spot"), ("auto", "auto")),
    ),
    note="`on-demand` (when not given), `spot`, or `auto`: whichever is expected to cost less, and in time",
    origin="dstack",
)
DEADLINE: Key[int] = Key(
    name="deadline",
    shape=DURATION,
    note="when it must be done, counted from its declaration; spot gives way to on-demand in time for it",
    origin="steersman",
)
WORK: Key[int] = Key(
    name="work",
    shape=DURATION,
    note="how long it takes when nothing disturbs it; `max_duration` when not given",
    origin="steersman",
)
MAX_PRICE: Key[int] = Key(
    name="max_price",
    shape=PRICE,
    note="the highest price of a node that may be paid, in dollars an hour",
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

JOB_SECTION = Section(
    name="job",
    title="a job",
    keys=(
        KIND,
        NAME_KEY,
        WORKDIR,
        NUM_NODES,
        TOPOLOGY,
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
        DISK,
        PORTS,
        accepted("outputs", "`artifacts` says what a job leaves behind"),
        SPOT_POLICY,
        DEADLINE,
        WORK,
        MAX_PRICE,
        accepted("idle_duration", "this machine is not stopped when idle", origin="dstack"),
        accepted("utilization_policy", "a job is not ended for idle accelerators", origin="dstack"),
        accepted("slo", "a job has no objective yet", origin="steersman"),
        accepted("scale", "a job keeps its `num_nodes`", origin="steersman"),
        accepted("carbon", "carbon is not yet a reason for a place or a time", origin="steersman"),
        IMAGE,
        VOLUMES,
        not_yet("file_mounts", "a job would not find the files; use `workdir`, or `inputs`"),
        not_yet("pool", "declare a fleet"),
        not_yet("config", "it may hold hooks and options of containers"),
        not_yet("experimental", "it may change any setting of SkyPilot"),
        not_yet("event_callback", "the command would not be called"),
        not_yet("budget", "a limit of money would not be enforced", origin="steersman"),
    ),
    elsewhere=(
        ("service", SERVICE_ADVICE),
        ("model", SERVICE_ADVICE),
        ("command", "did you mean `run`?"),
        ("commands", "did you mean `run`?"),
        ("script", "did you mean `run`?"),
        ("nodes", "did you mean `num_nodes`? (`nodes` belongs to `kind: fleet`)"),
        ("image", "did you mean `image_id`?"),
        ("type", "did you mean `kind`?"),
        ("cpu", "`cpus` belongs under `resources`"),
        ("gpu", "`accelerators` belongs under `resources`"),
        ("gpus", "`accelerators` belongs under `resources`"),
        *((key.name, f"`{key.name}` belongs under `resources`") for key in (INFRA, *RESOURCE_KEYS)),
    ),
)
