"""The keys of `service.replica_policy.metrics` and `.schedule`: what else moves the number of replicas.

The words are those of KEDA and dstack (`timezone`, `cron`) and of Kubernetes' autoscaler (`target`).
"""

from typing import Literal

from steersman.model.service import Named
from steersman.spec.measures import Span, Thousandths
from steersman.spec.scaling_values import CRON, OFFSET, QUERY, ServerUrl
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.shapes import Choice, Integer, ListOf
from steersman.spec.values import NAME

METRICS_MAX, WINDOWS_MAX = 16, 32
REPLICAS_MAX = 1_000
TARGET_MILLI_MAX = 1_000_000_000_000
DURATION_MS_MIN, DURATION_MS_MAX = 60_000, 31 * 86_400_000
"""A window of a schedule: a minute to a month, in milliseconds."""

# --- metrics --------------------------------------------------------------------------------------

URL: Key[str] = Key(
    name="url",
    shape=ServerUrl(),
    note="where Prometheus is: `http://prometheus:9090`; nothing else is asked, and no redirect followed",
    origin="steersman",
)
QUERY_KEY: Key[str] = Key(
    name="query", shape=QUERY, note="a query in PromQL that gives one number", origin="steersman"
)
PROMETHEUS_SECTION = Section(
    name="prometheus",
    title="`prometheus`",
    keys=(URL, QUERY_KEY),
    elsewhere=(
        ("serverAddress", "did you mean `url`?"),
        ("server", "did you mean `url`?"),
        ("threshold", "`target` stands beside `prometheus`"),
        ("target", "`target` stands beside `prometheus`"),
    ),
)
METRIC_NAME: Key[Named] = Key(
    name="name",
    shape=Choice(
        what="the name of a metric",
        options=(("backlog", "backlog"), ("queued_jobs", "queued_jobs")),
    ),
    note="`backlog`: seconds that what waits takes at the present rate of answers; `queued_jobs`: jobs that "
    "wait in a queue; GPU memory is a query of Prometheus",
    origin="steersman",
)
METRIC_QUEUE: Key[str] = Key(
    name="queue", shape=NAME, note="the queue of `queued_jobs`; default when not given", origin="steersman"
)
PROMETHEUS_KEY: Key[Fields] = Key(
    name="prometheus",
    shape=Nested(section=PROMETHEUS_SECTION),
    note="what a query of Prometheus gives",
    origin="steersman",
)
TARGET: Key[int] = Key(
    name="target",
    shape=Thousandths(what="a number above zero", least=1, most=TARGET_MILLI_MAX),
    note="what the figure should be: there are `figure / target` replicas, rounded up",
    origin="steersman",
    required=True,
)
PER: Key[Literal["replica", "total"]] = Key(
    name="per",
    shape=Choice(what="`replica` or `total`", options=(("replica", "replica"), ("total", "total"))),
    note="whether the figure is of one replica or of the whole; total, but replica for "
    "`backlog`, which is nothing else",
    origin="steersman",
)
METRIC_SECTION = Section(
    name="metric",
    title="an item of `metrics`",
    keys=(METRIC_NAME, METRIC_QUEUE, PROMETHEUS_KEY, TARGET, PER),
    elsewhere=(
        ("threshold", "did you mean `target`?"),
        ("value", "did you mean `target`?"),
        ("averageValue", "did you mean `target`?"),
        ("metricType", "write `per: replica` for Value, `per: total` for AverageValue"),
        ("type", "did you mean `name`?"),
        ("url", "`url` belongs under `prometheus`"),
        ("query", "`query` belongs under `prometheus`"),
    ),
)
METRICS: Key[tuple[Fields, ...]] = Key(
    name="metrics",
    shape=ListOf(what="metrics", item=Nested(section=METRIC_SECTION), items_max=METRICS_MAX),
    note="further figures that ask for replicas; the largest number wins",
    origin="steersman",
)

# --- schedule -------------------------------------------------------------------------------------

CRON_KEY: Key[str] = Key(
    name="cron",
    shape=CRON,
    note="when a window begins: `0 8 * * 1-5`; minute, hour, day of the month, month, day of the week",
    origin="dstack",
    required=True,
)
TIMEZONE: Key[int] = Key(
    name="timezone",
    shape=OFFSET,
    note="UTC, or how far the clock is ahead of it: `+02:00`; UTC when not given. There is no summer time",
    origin="steersman",
)
WINDOW_DURATION: Key[int] = Key(
    name="duration",
    shape=Span(what="a length of a window", least_ms=DURATION_MS_MIN, most_ms=DURATION_MS_MAX),
    note="how long it lasts",
    origin="steersman",
    required=True,
)
WINDOW_REPLICAS: Key[int] = Key(
    name="min_replicas",
    shape=Integer(what="a number of replicas", least=1, most=REPLICAS_MAX),
    note="the least number of replicas while it lasts",
    required=True,
)
_CRON = "did you mean `cron`?"
_LEAST = "did you mean `min_replicas`?"
WINDOW_SECTION = Section(
    name="window",
    title="an item of `schedule`",
    keys=(CRON_KEY, TIMEZONE, WINDOW_DURATION, WINDOW_REPLICAS),
    elsewhere=(
        ("start", _CRON),
        ("end", "write how long it lasts: `duration: 10h`"),
        ("desiredReplicas", _LEAST),
        ("replicas", _LEAST),
        ("tz", "did you mean `timezone`?"),
    ),
)
SCHEDULE: Key[tuple[Fields, ...]] = Key(
    name="schedule",
    shape=ListOf(what="windows", item=Nested(section=WINDOW_SECTION), items_max=WINDOWS_MAX),
    note="times at which there are more replicas than the least, whatever the load",
    origin="steersman",
)
