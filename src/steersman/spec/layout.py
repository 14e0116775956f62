"""A declaration laid out flat: path → (value, words), with the paths that users write.

Absent optional values are left out, so that what appears and what goes is a change of its own.
"""

from collections.abc import Iterator

from steersman.model.resources import WHOLE_MILLI, Resources
from steersman.model.service import CallableModel, Gateway, InputRange, Metric, Service, Window
from steersman.model.units import format_bytes, format_cpu, format_duration_ms, format_usd_micro
from steersman.model.workload import Job, Workload
from steersman.spec.measures import format_thousandths

Pair = tuple[object, str]
Words = dict[str, Pair]
Rows = Iterator[tuple[str, Pair]]


def of_workload(workload: Workload | None) -> Words:
    """A job's declaration; nothing for None."""
    if workload is None:
        return {}
    rows = (*_common(workload), *_of_job(workload.body))
    return {path: pair for path, pair in rows if pair[0] is not None}


def of_service(service: Service | None) -> Words:
    """A service's declaration; nothing for None."""
    if service is None:
        return {}
    rows = (*_common(service), *_program(service), *_model(service), *_serving(service), *_scaling(service))
    return {path: pair for path, pair in rows if pair[0] is not None}


def of_gateway(gateway: Gateway) -> Words:
    """A gateway's declaration."""
    port, hosts = gateway.port, gateway.hosts
    rows: tuple[tuple[str, Pair], ...] = (
        ("name", _text(gateway.name)),
        ("address", _text(gateway.address)),
        ("port", (port, str(port) if port else "any that is free")),
        ("workers", _number(gateway.workers)),
        ("keys", _text(gateway.keys)),
        ("hosts", (hosts or None, ", ".join(hosts))),
        ("tls.certificate", _text(gateway.certificate)),
        ("tls.private_key", _text(gateway.private_key)),
        ("connections_max", _number(gateway.connections_max)),
        ("connections_per_address_max", _number(gateway.connections_per_address_max)),
    )
    return {path: pair for path, pair in rows if pair[0] is not None}


def _common(declared: Workload | Service) -> Rows:
    yield from _resources(declared.resources)
    yield "queue", _text(declared.queue)
    yield "priority", _number(declared.priority)
    yield "owner", _text(declared.owner)
    for name, value in declared.labels:
        yield f"labels.{name}", _text(value)


def _resources(resources: Resources) -> Rows:
    yield "resources.cpus", (resources.cpu_milli, format_cpu(resources.cpu_milli))
    yield "resources.memory", (resources.memory_bytes, format_bytes(resources.memory_bytes))
    for kind, count in resources.accelerators:
        if resources.device_milli < WHOLE_MILLI:
            yield f"resources.accelerators.{kind}", _text(format_cpu(resources.device_milli))
        else:
            yield f"resources.accelerators.{kind}", _number(count)
    if resources.sharing != "auto":
        yield "resources.sharing", _text(resources.sharing)
    if resources.mig_profile:
        yield "resources.mig_profile", _text(resources.mig_profile)


def _program(declared: Job | Service) -> Rows:
    yield "workdir", _text(declared.workdir)
    yield "setup", _text(declared.setup)
    for name, value in declared.envs:
        yield f"envs.{name}", _text(value)
    for secret in declared.secrets:
        yield f"secrets.{secret.env}", _text(secret.secret)
    yield "stop_duration", _duration(declared.stop_grace_ms)


# Jobs.


def _of_job(job: Job) -> Rows:
    yield "num_nodes", _number(job.num_nodes)
    yield "topology", _text(job.topology or None)
    yield "run", _text(job.run)
    yield from _program(job)
    for each in job.inputs:
        yield f"inputs.{each.name}", _text(f"{each.workload}/{each.artifact}")
    for artifact in job.artifacts:
        yield f"artifacts.{artifact.name}", _text(artifact.path)
    yield "max_duration", _duration(job.max_duration_ms)
    yield "spot_policy", _text(job.spot_policy)
    yield "deadline", _duration(job.deadline_ms)
    yield "work", _duration(job.work_ms)
    price = job.price_usd_micro_per_hour_max
    yield "max_price", (price, "" if price is None else format_usd_micro(price))
    yield from _rules(job)


def _rules(job: Job) -> Rows:
    retry, checkpoint = job.retry, job.checkpoint
    yield "retry.on_events", (retry.on_events, ", ".join(retry.on_events) or "none")
    yield "retry.attempts", _number(retry.attempts_max)
    yield "retry.duration", _duration(retry.duration_ms_max)
    yield "retry.exit_codes.retry", _codes(retry.exit_codes_retry)
    yield "retry.exit_codes.fatal", _codes(retry.exit_codes_fatal)
    if checkpoint.enabled:
        yield "checkpoint", (True, "on")
        interval = checkpoint.interval_ms
        yield "checkpoint.interval", ("auto", "auto") if interval is None else _duration(interval)
        yield "checkpoint.min", _duration(checkpoint.interval_ms_min)
        yield "checkpoint.max", _duration(checkpoint.interval_ms_max)
        yield "checkpoint.keep", _number(checkpoint.keep_last)


# Services.


def _model(service: Service) -> Rows:
    model = service.model
    if isinstance(model, CallableModel):
        yield "model.callable", _text(model.target)
        yield "model.python", _text(model.python)
    else:
        source = model.artifact
        yield "model.onnx", _text(model.path)
        yield "model.artifact", _text(None if source is None else f"{source.workload}/{source.artifact}")
    for each in service.inputs:
        yield f"model.inputs.{each.name}", _range(each)


def _serving(service: Service) -> Rows:
    limits, rollout = service.limits, service.rollout
    yield "service.max_batch_size", _number(limits.batch_size_max)
    yield "service.batch_wait", _duration(limits.batch_wait_ms)
    yield "service.max_queued_requests", _number(limits.queued_max)
    yield "service.request_timeout", _duration(limits.timeout_ms)
    yield "service.max_body", (limits.body_bytes_max, format_bytes(limits.body_bytes_max))
    yield "service.rollout.max_surge", _number(rollout.surge_max)
    yield "service.rollout.ready_timeout", _duration(rollout.ready_timeout_ms)
    yield "service.rollout.max_crashes", _number(rollout.crashes_max)
    yield "service.rollout.ready_seconds_min", _duration(rollout.ready_ms_min)
    yield "slo.latency_p99", _duration(service.slo_latency_p99_ms)


def _scaling(service: Service) -> Rows:
    scaling, policy = service.scaling, "service.replica_policy"
    least, most = scaling.min_replicas, scaling.max_replicas
    yield "service.replicas", ((least, most), str(least) if least == most else f"{least} to {most}")
    yield f"{policy}.initial_replicas", _number(scaling.initial_replicas)
    yield f"{policy}.target_ongoing_requests", _milli(scaling.target_ongoing_requests_milli)
    yield f"{policy}.target_queued_requests", _milli(scaling.queued_requests_milli)
    yield f"{policy}.upscale_delay_s", _duration(scaling.upscale_delay_ms)
    yield f"{policy}.downscale_delay_s", _duration(scaling.downscale_delay_ms)
    yield f"{policy}.downscale_to_zero_delay_s", _duration(scaling.downscale_to_zero_delay_ms)
    yield f"{policy}.look_back_period_s", _duration(scaling.look_back_ms)
    yield f"{policy}.upscaling_factor", _milli(scaling.upscaling_factor_milli)
    yield f"{policy}.downscaling_factor", _milli(scaling.downscaling_factor_milli)
    yield f"{policy}.forecast", _text(None if scaling.forecast else "off")
    yield f"{policy}.metrics", (scaling.metrics or None, "; ".join(map(_metric, scaling.metrics)))
    yield f"{policy}.schedule", (scaling.schedule or None, "; ".join(map(_window, scaling.schedule)))


def _metric(each: Metric) -> str:
    name = each.name or f"{each.query} ({each.url})"
    of = f" of {each.queue}" if each.queue is not None else ""
    return f"{name}{of}, {format_thousandths(each.target_milli)} per {each.per}"


def _window(each: Window) -> str:
    sign, offset = "-" if each.offset_minutes < 0 else "+", abs(each.offset_minutes)
    zone = f"UTC{sign}{offset // 60:02d}:{offset % 60:02d}" if offset else "UTC"
    return f"{each.cron} {zone} for {format_duration_ms(each.duration_ms)}: {each.min_replicas}"


def _range(each: InputRange) -> Pair:
    least, most = each.minimum, each.maximum
    if least is None:
        return (least, most), f"at most {most!r}"
    return (least, most), f"at least {least!r}" if most is None else f"{least!r} to {most!r}"


# Values.


def _text(value: str | None) -> Pair:
    return value, value or ""


def _number(value: int | None) -> Pair:
    return value, "" if value is None else str(value)


def _milli(value: int | None) -> Pair:
    return value, "" if value is None else format_thousandths(value)


def _duration(value_ms: int | None) -> Pair:
    return value_ms, "" if value_ms is None else format_duration_ms(value_ms)


def _codes(codes: tuple[int, ...]) -> Pair:
    return codes or None, ", ".join(str(code) for code in codes)
