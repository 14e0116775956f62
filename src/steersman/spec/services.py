"""One document of kind service to a typed service.

Theory: as for jobs, the table of keys has checked every key; here are the rules that span several keys. A
service as SkyPilot writes it, whose program is `run:`, is read to its end and only then refused: everything
else that is wrong in it is told first.
"""

import contextlib
from itertools import pairwise

from msgspec.structs import replace

from steersman.model.errors import NotYetError, SpecError
from steersman.model.ids import QueueName, WorkloadName
from steersman.model.service import (
    ArtifactRef,
    CallableModel,
    InputRange,
    Metric,
    OnnxModel,
    RequestLimits,
    RolloutPolicy,
    Scaling,
    Service,
    Window,
)
from steersman.model.workload import DEFAULT_QUEUE
from steersman.spec import keys_common, keys_scaling, keys_service, keys_serving
from steersman.spec.common import Asked, read_envs, read_priority, read_queue
from steersman.spec.nodes import Entry, MapNode, is_empty
from steersman.spec.place import Place
from steersman.spec.sections import Fields, Key

_NO_MODEL = CallableModel(target="")
STOP_GRACE_MS = 30_000
"""The grace between notice and force of a replica, in milliseconds, when nobody says."""


def read_service(node: MapNode, place: Place, default_name: str) -> Service:
    """The service that a document declares. Raises SpecError."""
    entries = {entry.key.text: entry for entry in node.entries}
    program = entries.get(keys_service.RUN_OF_SERVICE.name)
    if program is None or is_empty(program.value):
        return _service(Fields(keys_service.SERVICE_SECTION, node, place), default_name)
    if keys_service.MODEL.name in entries:
        raise place.at(program.key.text).error(
            program.key.line,
            "a service has a `model`, or a program of its own, not both",
            "remove `run`; what must be prepared goes to `setup`",
        )
    raise _own_server(node, program, place, default_name)


def _own_server(node: MapNode, program: Entry, place: Place, default_name: str) -> SpecError:
    """The refusal of a service without a model. Raises what else is wrong in it."""
    rest = MapNode(entries=tuple(entry for entry in node.entries if entry is not program), line=node.line)
    with contextlib.suppress(NotYetError):  # without a model there is more to change than that
        _rest(Fields(keys_service.SERVICE_SECTION, rest, place), default_name)
    return place.at(program.key.text).not_yet(
        program.key.line,
        "a service whose program is an HTTP server of its own is not built yet",
        "give `model:` a `callable: module:attribute`, or an `onnx:` file, and remove `run`",
    )


def _service(fields: Fields, default_name: str) -> Service:
    model = fields.require(keys_service.MODEL)
    return replace(_rest(fields, default_name), model=_model(model), inputs=_ranges(model))


def _rest(fields: Fields, default_name: str) -> Service:
    """Everything but the model."""
    asked = Asked(fields)
    if asked.get(keys_common.USE_SPOT):
        fields.place.at("resources").warn(
            fields.line, "`use_spot` has no effect on a service yet: replicas go to on-demand capacity"
        )
    fields.get(keys_common.DATA)  # nothing in it is honoured yet, and its keys say so
    secrets = fields.get_or(keys_common.SECRETS, ())
    slo = fields.get(keys_service.SLO)
    latency_p99_ms = None if slo is None else slo.get(keys_service.LATENCY_P99)
    serving = fields.get(keys_service.SERVING)
    return Service(
        name=WorkloadName(fields.get_or(keys_common.NAME_KEY, default_name)),
        model=_NO_MODEL,
        resources=asked.resources(),
        scaling=replace(_scaling(serving), latency_p99_ms=latency_p99_ms),
        limits=_limits(serving),
        rollout=_rollout(serving),
        slo_latency_p99_ms=latency_p99_ms,
        setup=fields.get(keys_common.SETUP),
        workdir=fields.get(keys_common.WORKDIR),
        envs=read_envs(fields, secrets),
        secrets=secrets,
        stop_grace_ms=fields.get_or(keys_common.STOP_DURATION, STOP_GRACE_MS),
        queue=read_queue(fields),
        priority=read_priority(fields, asked),
        owner=fields.get(keys_common.OWNER),
        labels=fields.get_or(keys_common.LABELS, ()),
    )


# The model.


def _model(fields: Fields) -> OnnxModel | CallableModel:
    onnx, target = fields.get(keys_service.ONNX), fields.get(keys_service.CALLABLE)
    artifact, python = fields.get(keys_service.MODEL_ARTIFACT), fields.get(keys_service.PYTHON)
    if [onnx, target, artifact].count(None) != 2:
        raise fields.place.error(
            fields.line,
            "a model is exactly one of `onnx`, `artifact` and `callable`",
            "keep one: the path of an ONNX file, `job/artifact`, or `module:attribute`",
        )
    if target is not None:
        return CallableModel(target=target, python=python)
    if python is not None:
        raise _at(
            fields, keys_service.PYTHON, "an ONNX model has no interpreter", "remove it, or give a `callable`"
        )
    if artifact is None:
        return OnnxModel(path=onnx)
    workload, name = artifact
    return OnnxModel(artifact=ArtifactRef(workload=workload, artifact=name))


def _ranges(fields: Fields) -> tuple[InputRange, ...]:
    pairs = fields.get_or(keys_service.RANGES, ())
    if pairs and fields.written(keys_service.CALLABLE):
        raise fields.place.at(keys_service.RANGES.name).not_yet(
            fields.line_of(keys_service.RANGES),
            "a callable takes JSON without declared inputs: no range of them can be checked",
            "check the values in the callable, or serve an ONNX model",
        )
    return tuple(_range(name, pair) for name, pair in pairs)


def _range(name: str, fields: Fields) -> InputRange:
    least, most = fields.get(keys_service.RANGE_MIN), fields.get(keys_service.RANGE_MAX)
    if least is None and most is None:
        raise fields.place.error(fields.line, "the range has no bound", "write `{min: 0, max: 16}`, or one")
    if least is not None and most is not None and least > most:
        raise fields.place.error(fields.line, f"`min` {least:g} is more than `max` {most:g}", "exchange them")
    return InputRange(name=name, minimum=least, maximum=most)


# How many replicas.


def _scaling(serving: Fields | None) -> Scaling:
    if serving is None:
        return Scaling()
    fixed, policy = serving.get(keys_serving.REPLICAS), serving.get(keys_serving.POLICY)
    if fixed is not None and policy is not None:
        raise _at(
            serving,
            keys_serving.REPLICAS,
            "`replicas` is a fixed number and `replica_policy` a moving one",
            "keep one of them",
        )
    if policy is not None:
        return _policy(policy)
    count = 1 if fixed is None else fixed
    return Scaling(min_replicas=count, max_replicas=count)


def _policy(fields: Fields) -> Scaling:
    default = Scaling()
    least, most, first = _bounds(fields)
    schedule = tuple(_window(each, most) for each in fields.get_or(keys_scaling.SCHEDULE, ()))
    return Scaling(
        min_replicas=least,
        max_replicas=most,
        initial_replicas=first,
        target_ongoing_requests_milli=fields.get_or(
            keys_serving.TARGET_ONGOING, default.target_ongoing_requests_milli
        ),
        queued_requests_milli=fields.get(keys_serving.TARGET_QUEUED),
        upscale_delay_ms=_one_of(
            fields, keys_serving.UPSCALE_DELAY, keys_serving.UPSCALE_DELAY_SKY, default.upscale_delay_ms
        ),
        downscale_delay_ms=_one_of(
            fields, keys_serving.DOWNSCALE_DELAY, keys_serving.DOWNSCALE_DELAY_SKY, default.downscale_delay_ms
        ),
        downscale_to_zero_delay_ms=fields.get_or(
            keys_serving.TO_ZERO_DELAY, default.downscale_to_zero_delay_ms
        ),
        look_back_ms=fields.get_or(keys_serving.LOOK_BACK, default.look_back_ms),
        upscaling_factor_milli=fields.get_or(keys_serving.UPSCALING_FACTOR, default.upscaling_factor_milli),
        downscaling_factor_milli=fields.get_or(
            keys_serving.DOWNSCALING_FACTOR, default.downscaling_factor_milli
        ),
        forecast=fields.get_or(keys_serving.FORECAST, default.forecast),
        metrics=tuple(_metric(each) for each in fields.get_or(keys_scaling.METRICS, ())),
        schedule=schedule,
    )


def _metric(fields: Fields) -> Metric:
    name, query = fields.get(keys_scaling.METRIC_NAME), fields.get(keys_scaling.PROMETHEUS_KEY)
    per, target = fields.get(keys_scaling.PER), fields.require(keys_scaling.TARGET)
    if (name is None) == (query is None):
        raise fields.place.error(
            fields.line, "a metric is one of `name` and `prometheus`", "keep one, or write one of them"
        )
    if query is not None:
        url, text = query.require(keys_scaling.URL), query.require(keys_scaling.QUERY_KEY)
        return Metric(url=url, query=text, target_milli=target, per=per or "total")
    queue = fields.get(keys_scaling.METRIC_QUEUE)
    if name == "queued_jobs":
        return Metric(
            name=name, queue=QueueName(queue or DEFAULT_QUEUE), target_milli=target, per=per or "total"
        )
    if queue is not None:
        raise _at(fields, keys_scaling.METRIC_QUEUE, f"`{name}` is of no queue", "remove it")
    if per == "total":
        raise _at(fields, keys_scaling.PER, f"`{name}` is a figure of one replica", "write `per: replica`")
    return Metric(name=name, target_milli=target, per="replica")


def _window(fields: Fields, most: int) -> Window:
    least = fields.require(keys_scaling.WINDOW_REPLICAS)
    if least > most:
        raise _at(
            fields,
            keys_scaling.WINDOW_REPLICAS,
            f"the window asks for {least} replicas, and `max_replicas` is {most}",
            f"raise `max_replicas` to {least}",
        )
    return Window(
        cron=fields.require(keys_scaling.CRON_KEY),
        duration_ms=fields.require(keys_scaling.WINDOW_DURATION),
        min_replicas=least,
        offset_minutes=fields.get_or(keys_scaling.TIMEZONE, 0),
    )


def _bounds(fields: Fields) -> tuple[int, int, int | None]:
    """The least, greatest and first number of replicas. The greatest follows the others when left out."""
    least = fields.get_or(keys_serving.MIN_REPLICAS, Scaling().min_replicas)
    first = fields.get(keys_serving.INITIAL_REPLICAS)
    most = fields.get_or(keys_serving.MAX_REPLICAS, max(least, first or 0, 1))
    first_or = () if first is None else ((keys_serving.INITIAL_REPLICAS, first),)
    bounds = ((keys_serving.MIN_REPLICAS, least), *first_or, (keys_serving.MAX_REPLICAS, most))
    for (low, low_value), (high, high_value) in pairwise(bounds):
        if low_value > high_value:
            unsaid = "" if fields.written(low) else ", for it is not given"
            raise _at(
                fields,
                high,
                f"`{low.name}` is {low_value}{unsaid}, and `{high.name}` is less, {high_value}",
                f"raise `{high.name}` to {low_value}, or write `{low.name}: {high_value}`",
            )
    return least, most, first


def _one_of(fields: Fields, key: Key[int], other: Key[int], default: int) -> int:
    """The value of a key that has two names."""
    if fields.written(key) and fields.written(other):
        raise _at(fields, other, f"it says the same as `{key.name}`", "keep one of them")
    return fields.get_or(key, fields.get_or(other, default))


# How it is served.


def _limits(serving: Fields | None) -> RequestLimits:
    default = RequestLimits()
    if serving is None:
        return default
    limits = RequestLimits(
        queued_max=serving.get_or(keys_serving.QUEUED, default.queued_max),
        timeout_ms=serving.get_or(keys_serving.REQUEST_TIMEOUT, default.timeout_ms),
        body_bytes_max=serving.get_or(keys_serving.BODY, default.body_bytes_max),
        batch_size_max=serving.get_or(keys_serving.BATCH_SIZE, default.batch_size_max),
        batch_wait_ms=serving.get_or(keys_serving.BATCH_WAIT, default.batch_wait_ms),
    )
    if limits.batch_wait_ms >= limits.timeout_ms:
        raise _at(
            serving,
            keys_serving.BATCH_WAIT,
            "a batch would wait as long as a request may take: none would be answered in time",
            "make `batch_wait` a small part of `request_timeout`",
        )
    return limits


def _rollout(serving: Fields | None) -> RolloutPolicy:
    default = RolloutPolicy()
    if serving is None:
        return default
    probe, rollout = serving.get(keys_serving.PROBE), serving.get(keys_serving.ROLLOUT)
    delay = None if probe is None else probe.get(keys_serving.PROBE_DELAY)
    if rollout is None:
        return default if delay is None else replace(default, ready_timeout_ms=delay)
    if delay is not None and rollout.written(keys_serving.READY_TIMEOUT):
        raise _at(
            rollout,
            keys_serving.READY_TIMEOUT,
            "it says the same as `readiness_probe.initial_delay_seconds`",
            "keep one of them",
        )
    return RolloutPolicy(
        surge_max=rollout.get_or(keys_serving.SURGE, default.surge_max),
        ready_timeout_ms=rollout.get_or(keys_serving.READY_TIMEOUT, delay or default.ready_timeout_ms),
        crashes_max=rollout.get_or(keys_serving.CRASHES, default.crashes_max),
        ready_ms_min=rollout.get_or(keys_serving.READY_MIN, default.ready_ms_min),
    )


def _at(fields: Fields, key: Key[object], message: str, hint: str) -> SpecError:
    return fields.place.at(key.name).error(fields.line_of(key), message, hint)
