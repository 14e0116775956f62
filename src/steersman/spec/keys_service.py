"""The keys of a service but for those of its `service` section, and what is said of a job's keys in one."""

from steersman.model.ids import WorkloadName
from steersman.spec.keys_common import (
    ANY,
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
from steersman.spec.keys_serving import (
    POLICY_SECTION,
    REQUEST_TIMEOUT_MS_MAX,
    SERVING_SECTION,
)
from steersman.spec.measures import Real, Span
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.service_values import MODEL_INPUT_NAME, TARGET, LocalPath
from steersman.spec.shapes import MapOf
from steersman.spec.values import InputSource

OWN_SERVER = (
    "an HTTP server of your own cannot be served behind the gateway; "
    "give `model:` a `callable: module:attribute` or an `onnx:` file"
)

# --- model ----------------------------------------------------------------------------------------

RANGE_MIN: Key[float] = Key(
    name="min", shape=Real(what="a finite number"), note="the least value accepted", origin="steersman"
)
RANGE_MAX: Key[float] = Key(
    name="max", shape=Real(what="a finite number"), note="the greatest value accepted", origin="steersman"
)
RANGE_SECTION = Section(
    name="range",
    title="the range of an input",
    keys=(RANGE_MIN, RANGE_MAX),
    elsewhere=(("minimum", "did you mean `min`?"), ("maximum", "did you mean `max`?")),
)
ONNX: Key[str] = Key(
    name="onnx",
    shape=LocalPath(what="the path of an ONNX file"),
    note="an ONNX file: a path from `workdir`, or else from the folder of this file",
    origin="steersman",
)
MODEL_ARTIFACT: Key[tuple[WorkloadName, str]] = Key(
    name="artifact",
    shape=InputSource(section=INPUT_SECTION),
    note="an ONNX file that a job leaves: `job/artifact`; served once the job has succeeded",
    origin="steersman",
)
CALLABLE: Key[str] = Key(
    name="callable",
    shape=TARGET,
    note="a Python object: `module:attribute`, from `workdir`, or else from the folder of this file",
    origin="steersman",
)
PYTHON: Key[str] = Key(
    name="python",
    shape=LocalPath(what="the path of an interpreter"),
    note="the interpreter of a callable, from `workdir`: `.venv/bin/python`; Steersman's when not given",
    origin="steersman",
)
RANGES: Key[tuple[tuple[str, Fields], ...]] = Key(
    name="inputs",
    shape=MapOf(what="inputs", key=MODEL_INPUT_NAME, value=Nested(section=RANGE_SECTION)),
    note="what values the model's inputs may have: `NAME: {min: 0, max: 16}`; others are refused",
    origin="steersman",
)
MODEL_SECTION = Section(
    name="model",
    title="`model`",
    keys=(ONNX, MODEL_ARTIFACT, CALLABLE, PYTHON, RANGES),
    elsewhere=(
        ("path", "did you mean `onnx`?"),
        ("file", "did you mean `onnx`?"),
        ("input", "did you mean `inputs`?"),
        ("name", "the service has the name: `name` stands beside `model`"),
    ),
)

# --- service --------------------------------------------------------------------------------------

LATENCY_P99: Key[int] = Key(
    name="latency_p99",
    shape=Span(what="a latency", least_ms=1, most_ms=REQUEST_TIMEOUT_MS_MAX),
    note="99 of 100 requests should take no longer; above it there should be more replicas",
    origin="steersman",
)
SLO_SECTION = Section(
    name="slo",
    title="`slo`",
    keys=(LATENCY_P99,),
    elsewhere=(("p99", "did you mean `latency_p99`?"), ("latency", "did you mean `latency_p99`?")),
)
MODEL: Key[Fields] = Key(
    name="model",
    shape=Nested(section=MODEL_SECTION),
    note="what is served: one of `onnx`, `artifact` and `callable`",
    origin="steersman",
    required=True,
)
SERVING: Key[Fields] = Key(
    name="service", shape=Nested(section=SERVING_SECTION, nullable=True), note="how it is served"
)
SLO: Key[Fields] = Key(
    name="slo",
    shape=Nested(section=SLO_SECTION, nullable=True),
    note="what it should hold",
    origin="steersman",
)
RUN_OF_SERVICE: Key[None] = Key(name="run", shape=ANY, note=OWN_SERVER, standing="not-yet")
_ENDLESS = "a service has no end of its own: it runs until `steer stop` or `steer down`"
SERVICE_SECTION = Section(
    name="service",
    title="a service",
    keys=(
        KIND,
        NAME_KEY,
        MODEL,
        SERVING,
        SLO,
        RESOURCES,
        WORKDIR,
        ENVS,
        SECRETS,
        SETUP,
        STOP_DURATION,
        QUEUE,
        PRIORITY,
        OWNER,
        LABELS,
        DATA,
        DISK,
        PORTS,
        accepted("max_price", "replicas do not choose by price", PRICE, "dstack"),
        accepted("idle_duration", "this machine is not stopped when idle", origin="dstack"),
        accepted("utilization_policy", "a replica is not ended for idle accelerators", origin="dstack"),
        accepted("spot_policy", "replicas never run on spot capacity", origin="dstack"),
        accepted("carbon", "carbon is not yet a reason for a place or a time", origin="steersman"),
        RUN_OF_SERVICE,
        IMAGE,
        VOLUMES,
        not_yet("file_mounts", "a replica would not find the files; use `workdir`"),
        not_yet("config", "it may hold hooks and options of containers"),
        not_yet("experimental", "it may change any setting of SkyPilot"),
        not_yet("event_callback", "the command would not be called"),
        not_yet("budget", "a limit of money would not be enforced", origin="steersman"),
    ),
    elsewhere=(
        ("num_nodes", "a replica runs on one node; `service.replicas` says how many there are"),
        ("inputs", "a service needs no more than its model: `model.artifact`; ranges go to `model.inputs`"),
        ("artifacts", "a service leaves nothing behind; a job does"),
        ("outputs", "a service leaves nothing behind; a job does"),
        ("retry", "a replica that ends is replaced for as long as it is wanted; see `service.rollout`"),
        ("checkpoint", "a replica has no progress to save"),
        ("max_duration", _ENDLESS),
        ("deadline", _ENDLESS),
        ("command", "did you mean `model.callable`?"),
        ("commands", "did you mean `model.callable`?"),
        ("type", "did you mean `kind`?"),
        ("scale", "did you mean `service.replica_policy`?"),
        ("scaling", "did you mean `service.replica_policy`?"),
        ("autoscaling_config", "did you mean `service.replica_policy`?"),
        ("gateway", "declare it in a document of its own: `kind: gateway`"),
        ("tls", "it belongs to a document of `kind: gateway`"),
        ("port", "it belongs to a document of `kind: gateway`"),
        *((key.name, f"`{key.name}` belongs under `service`") for key in SERVING_SECTION.keys),
        *((key.name, f"`{key.name}` belongs under `service.replica_policy`") for key in POLICY_SECTION.keys),
        *((key.name, f"`{key.name}` belongs under `model`") for key in MODEL_SECTION.keys),
        *((key.name, f"`{key.name}` belongs under `slo`") for key in SLO_SECTION.keys),
        *((key.name, f"`{key.name}` belongs under `resources`") for key in (INFRA, *RESOURCE_KEYS)),
    ),
)
