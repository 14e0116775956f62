"""The keys of `service` and of what is below it: how many replicas, how they are given work, how they change.

The words are SkyPilot's where it has one; in `replica_policy` those of Ray Serve's autoscaling stand beside
them, with their meaning there: a number of seconds where a name ends with `_s`.
"""

from steersman.spec.keys_common import FLAG, accepted, not_yet
from steersman.spec.keys_scaling import METRICS, SCHEDULE
from steersman.spec.measures import Size, Span, Thousandths
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.service_values import Probe
from steersman.spec.shapes import Choice, Integer, Text

REPLICAS_MAX = 1_000
"""The most replicas of one service."""
BATCH_ROWS_MAX = 65_535
"""The most rows of one batch: a frame counts them in 16 bits."""
BATCH_WAIT_MS_MAX = 10_000
"""The longest time that a batch may wait to grow, in milliseconds."""
QUEUED_MAX = 1_000_000
"""The most requests that may wait."""
BODY_BYTES_MAX = 256 * 2**20
"""The largest body that may be let in, in bytes: 256 MiB."""
REQUEST_TIMEOUT_MS_MAX = 3_600_000
"""The longest time that a request may take, in milliseconds: an hour."""
READY_TIMEOUT_MS_MAX = 6 * 3_600_000
"""The longest time that a replica may take to get ready, in milliseconds: six hours."""
DELAY_MS_MAX = 86_400_000
"""The longest delay of a change of the number of replicas, in milliseconds: a day."""
LOOK_BACK_MS_MIN, LOOK_BACK_MS_MAX = 1_000, 3_600_000
"""The span over which load is averaged, in milliseconds: a second to an hour."""
ONGOING_MILLI_MAX = 1_000_000_000
"""The most requests that one replica may be said to carry, in thousandths: a million."""
FACTOR_MILLI_MAX = 100_000
"""The largest factor of a change of the number of replicas, in thousandths: a hundred."""
SURGE_MAX = 100
CRASHES_MAX = 1_000


def _replicas(name: str, note: str, least: int) -> Key[int]:
    shape = Integer(what="a number of replicas", least=least, most=REPLICAS_MAX)
    return Key(name=name, shape=shape, note=note)


def _seconds(name: str, note: str) -> Key[int]:
    shape = Thousandths(what="a delay in seconds", least=0, most=DELAY_MS_MAX)
    return Key(name=name, shape=shape, note=note, origin="ray-serve" if name.endswith("_s") else "skypilot")


def _milli(name: str, what: str, note: str, most: int) -> Key[int]:
    return Key(name=name, shape=Thousandths(what=what, least=1, most=most), note=note, origin="ray-serve")


# --- how many replicas ----------------------------------------------------------------------------

MIN_REPLICAS = _replicas("min_replicas", "the least number of replicas; 1 when not given, 0 is allowed", 0)
MAX_REPLICAS = _replicas("max_replicas", "the greatest number of replicas; the least when not given", 1)
INITIAL_REPLICAS: Key[int] = Key(
    name="initial_replicas",
    shape=Integer(what="a number of replicas", least=0, most=REPLICAS_MAX),
    note="how many to begin with; the least when not given",
    origin="ray-serve",
)
TARGET_ONGOING = _milli(
    "target_ongoing_requests",
    "a number of requests",
    "requests in flight and queued that each replica should carry; 2 when not given",
    ONGOING_MILLI_MAX,
)
TARGET_QUEUED: Key[int] = Key(
    name="target_queued_requests",
    shape=Thousandths(what="a number of requests", least=1, most=ONGOING_MILLI_MAX),
    note="requests that wait, for each replica, above which there should be more replicas",
    origin="steersman",
)
UPSCALE_DELAY = _seconds("upscale_delay_s", "how long more must be wanted before there are more; 3")
UPSCALE_DELAY_SKY = _seconds("upscale_delay_seconds", "the same as `upscale_delay_s`")
DOWNSCALE_DELAY = _seconds("downscale_delay_s", "how long fewer must be wanted before there are fewer; 60")
DOWNSCALE_DELAY_SKY = _seconds("downscale_delay_seconds", "the same as `downscale_delay_s`")
TO_ZERO_DELAY = _seconds(
    "downscale_to_zero_delay_s", "how long nothing must be asked before the last replica goes; 300"
)
LOOK_BACK: Key[int] = Key(
    name="look_back_period_s",
    shape=Thousandths(what="a span in seconds", least=LOOK_BACK_MS_MIN, most=LOOK_BACK_MS_MAX),
    note="over which time load is averaged; 5",
    origin="ray-serve",
)
UPSCALING_FACTOR = _milli(
    "upscaling_factor", "a factor", "how much of the way up to go at once; 1, all of it", FACTOR_MILLI_MAX
)
DOWNSCALING_FACTOR = _milli(
    "downscaling_factor", "a factor", "how much of the way down to go at once; 1, all of it", FACTOR_MILLI_MAX
)
FORECAST: Key[bool] = Key(
    name="forecast",
    shape=Choice(what="`on` or `off`", options=(("on", True), ("off", False))),
    note="whether there are also as many replicas as what is expected to come needs; on",
    origin="steersman",
)
_FACTORS = "write `upscaling_factor` and `downscaling_factor`, as Ray Serve does now"
POLICY_SECTION = Section(
    name="replica_policy",
    title="`service.replica_policy`",
    keys=(
        MIN_REPLICAS,
        MAX_REPLICAS,
        INITIAL_REPLICAS,
        TARGET_ONGOING,
        TARGET_QUEUED,
        UPSCALE_DELAY,
        UPSCALE_DELAY_SKY,
        DOWNSCALE_DELAY,
        DOWNSCALE_DELAY_SKY,
        TO_ZERO_DELAY,
        LOOK_BACK,
        UPSCALING_FACTOR,
        DOWNSCALING_FACTOR,
        FORECAST,
        METRICS,
        SCHEDULE,
        accepted("metrics_interval_s", "figures are taken four times a second", origin="ray-serve"),
        accepted("aggregation_function", "load is the mean over the look-back", origin="ray-serve"),
        accepted("num_overprovision", "there are no spare replicas; raise `min_replicas`"),
        accepted("dynamic_ondemand_fallback", "replicas never run on spot capacity", FLAG),
        accepted("base_ondemand_fallback_replicas", "replicas never run on spot capacity"),
        accepted("spot_placer", "replicas never run on spot capacity"),
        not_yet(
            "target_qps_per_replica",
            "a rate says nothing of the load without the time that a request takes; write "
            "`target_ongoing_requests`, which is the rate times the seconds that a request takes",
        ),
        not_yet("policy", "a policy of your own would not be asked", origin="ray-serve"),
    ),
    elsewhere=(
        ("smoothing_factor", _FACTORS),
        ("upscale_smoothing_factor", "did you mean `upscaling_factor`?"),
        ("downscale_smoothing_factor", "did you mean `downscaling_factor`?"),
        ("target_num_ongoing_requests_per_replica", "did you mean `target_ongoing_requests`?"),
        ("triggers", "did you mean `metrics`, or for cron `schedule`?"),
        ("cron", "did you mean `schedule`?"),
        ("replicas", "`replicas` stands beside `replica_policy`, and only one of the two"),
        ("min", "did you mean `min_replicas`?"),
        ("max", "did you mean `max_replicas`?"),
    ),
)

# --- how it is served -----------------------------------------------------------------------------

PROBE_DELAY: Key[int] = Key(
    name="initial_delay_seconds",
    shape=Thousandths(what="a delay in seconds", least=1, most=READY_TIMEOUT_MS_MAX),
    note="the same as `rollout.ready_timeout`",
)
_READY = "a replica says itself that its model is loaded and warm"
PROBE_PATH: Key[object] = accepted(
    "path", _READY, Text(what="a path of a URL", pattern="/.*", rule="begin with `/`", chars_max=2_048)
)
PROBE_SECTION = Section(
    name="readiness_probe",
    title="`service.readiness_probe`",
    keys=(
        PROBE_PATH,
        PROBE_DELAY,
        accepted("timeout_seconds", _READY),
        accepted("post_data", _READY),
        accepted("headers", _READY),
    ),
)
SURGE: Key[int] = Key(
    name="max_surge",
    shape=Integer(what="a number of replicas", least=1, most=SURGE_MAX),
    note="how many replicas more than wanted there may be while a new revision takes over; 1",
    origin="steersman",
)
READY_TIMEOUT: Key[int] = Key(
    name="ready_timeout",
    shape=Span(what="a time to get ready", least_ms=1, most_ms=READY_TIMEOUT_MS_MAX),
    note="how long a replica may run without being ready; 2m",
    origin="steersman",
)
CRASHES: Key[int] = Key(
    name="max_crashes",
    shape=Integer(what="a number of crashes", least=1, most=CRASHES_MAX),
    note="after how many crashes before being ready, or soon after, a new revision is given up; 3",
    origin="steersman",
)
READY_MIN: Key[int] = Key(
    name="ready_seconds_min",
    shape=Thousandths(what="a time in seconds", least=0, most=READY_TIMEOUT_MS_MAX),
    note="how many seconds a new replica must have been ready to count as taking over; 0",
    origin="steersman",
)
_READY_MIN = "did you mean `ready_seconds_min`?"
ROLLOUT_SECTION = Section(
    name="rollout",
    title="`service.rollout`",
    keys=(SURGE, READY_TIMEOUT, CRASHES, READY_MIN),
    elsewhere=(("minReadySeconds", _READY_MIN), ("min_ready_seconds", _READY_MIN)),
)

REPLICAS = _replicas("replicas", "a fixed number of replicas; 1 when there is no `replica_policy`", 1)
POLICY: Key[Fields] = Key(
    name="replica_policy",
    shape=Nested(section=POLICY_SECTION, nullable=True),
    note="the bounds of the number of replicas, and what moves it",
)
PROBE: Key[Fields | None] = Key(
    name="readiness_probe",
    shape=Probe(path=PROBE_PATH, section=PROBE_SECTION),
    note="SkyPilot's probe: only its `initial_delay_seconds` is used",
)
BATCH_SIZE: Key[int] = Key(
    name="max_batch_size",
    shape=Integer(what="a number of rows", least=1, most=BATCH_ROWS_MAX),
    note="the most rows that a replica is given at once; 64 when not given",
    origin="ray-serve",
)
BATCH_WAIT: Key[int] = Key(
    name="batch_wait",
    shape=Span(what="a time to wait", least_ms=0, most_ms=BATCH_WAIT_MS_MAX),
    note="how long a batch may wait to grow while a replica is free; 0s when not given",
    origin="steersman",
)
QUEUED: Key[int] = Key(
    name="max_queued_requests",
    shape=Integer(what="a number of requests", least=1, most=QUEUED_MAX),
    note="how many requests may wait in one gateway process; more are refused. 1024 when not given",
    origin="ray-serve",
)
REQUEST_TIMEOUT: Key[int] = Key(
    name="request_timeout",
    shape=Span(what="a time for a request", least_ms=1, most_ms=REQUEST_TIMEOUT_MS_MAX),
    note="how long a request may take, waiting included; 30s when not given",
    origin="steersman",
)
BODY: Key[int] = Key(
    name="max_body",
    shape=Size(what="a size of a body", most_bytes=BODY_BYTES_MAX),
    note="the largest body of a request, with its unit; 4MB when not given",
    origin="steersman",
)
ROLLOUT: Key[Fields] = Key(
    name="rollout",
    shape=Nested(section=ROLLOUT_SECTION, nullable=True),
    note="how a new revision takes over",
    origin="steersman",
)
SERVING_SECTION = Section(
    name="serving",
    title="`service`",
    keys=(
        REPLICAS,
        POLICY,
        PROBE,
        BATCH_SIZE,
        BATCH_WAIT,
        QUEUED,
        REQUEST_TIMEOUT,
        BODY,
        ROLLOUT,
        accepted("load_balancing_policy", "the gateway gives a batch to the replica that is free first"),
        accepted("ports", "the gateway has the port: `kind: gateway`"),
        not_yet("tls", "callers would not be encrypted; `tls` belongs to a document of `kind: gateway`"),
        not_yet("pool", "a pool of workers takes jobs, not requests"),
        not_yet("workers", "a pool of workers takes jobs, not requests"),
    ),
    elsewhere=(
        ("num_replicas", "did you mean `replicas`?"),
        ("autoscaling_config", "did you mean `replica_policy`?"),
        ("scaling", "did you mean `replica_policy`?"),
        ("batch_wait_timeout_s", "did you mean `batch_wait`?"),
        ("timeout", "did you mean `request_timeout`?"),
        ("max_ongoing_requests", "`replica_policy.target_ongoing_requests` says what a replica carries"),
        ("slo", "`slo` stands beside `service`, not in it"),
        ("model", "`model` stands beside `service`, not in it"),
        *((key.name, f"`{key.name}` belongs under `rollout`") for key in ROLLOUT_SECTION.keys),
        *((key.name, f"`{key.name}` belongs under `replica_policy`") for key in POLICY_SECTION.keys),
    ),
)
