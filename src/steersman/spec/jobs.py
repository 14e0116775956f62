"""One document of kind job to a typed workload.

Theory: the table of keys has checked every key and reads every value; what is left is here: defaults that
the model leaves to us, rules that span several keys, and the words of SkyPilot that mean the same as ours.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from steersman.model.ids import WorkloadName
from steersman.model.units import format_duration_ms
from steersman.model.workload import (
    Artifact,
    CheckpointPolicy,
    Input,
    Job,
    Retry,
    RetryEvent,
    SpotPolicy,
    Workload,
)
from steersman.spec import keys_common, keys_job
from steersman.spec.common import Asked, read_envs, read_priority, read_queue
from steersman.spec.nodes import MapNode
from steersman.spec.place import Place
from steersman.spec.sections import Fields, Key

FOREIGN_SHOWN_MAX = 3
"""How many variables of another tool one warning names."""
_FOREIGN = re.compile(r"\bSKYPILOT_[A-Z_]{1,40}")


def read_job(node: MapNode, place: Place, default_name: str) -> Workload:
    """The workload that a document declares. Raises SpecError."""
    _refuse_pipeline(node, place)
    fields = Fields(keys_job.JOB_SECTION, node, place)
    asked = Asked(fields)
    return Workload(
        name=WorkloadName(fields.get_or(keys_common.NAME_KEY, default_name)),
        body=_body(fields, asked),
        resources=asked.resources(),
        queue=read_queue(fields),
        priority=read_priority(fields, asked),
        owner=fields.get(keys_common.OWNER),
        labels=fields.get_or(keys_common.LABELS, ()),
    )


def _refuse_pipeline(node: MapNode, place: Place) -> None:
    """A first document with nothing but a name is how SkyPilot writes a pipeline."""
    names = {entry.key.text for entry in node.entries}
    if "name" in names and names <= {"name", "execution", "primary_tasks"}:
        raise place.not_yet(
            node.line,
            "a document with only a name begins a pipeline of SkyPilot, which is not built yet",
            "remove it, name each job, and connect them with `inputs` and `artifacts`",
        )


def _body(fields: Fields, asked: Asked) -> Job:
    setup, run = fields.get(keys_common.SETUP), fields.require(keys_job.RUN)
    _warn_foreign(fields, keys_common.SETUP, setup)
    _warn_foreign(fields, keys_job.RUN, run)
    fields.get(keys_common.DATA)  # nothing in it is honoured yet, and its keys say so
    secrets = fields.get_or(keys_common.SECRETS, ())
    deadline_ms, work_ms = _deadline(fields)
    checkpoint = _checkpoint(fields)
    return Job(
        num_nodes=fields.get_or(keys_job.NUM_NODES, 1),
        topology=fields.get_or(keys_job.TOPOLOGY, ""),
        setup=setup,
        run=run,
        workdir=fields.get(keys_common.WORKDIR),
        envs=read_envs(fields, secrets),
        secrets=secrets,
        inputs=_inputs(fields),
        artifacts=tuple(
            Artifact(name=name, path=path) for name, path in fields.get_or(keys_job.ARTIFACTS, ())
        ),
        max_duration_ms=fields.get(keys_job.MAX_DURATION),
        stop_grace_ms=fields.get_or(keys_common.STOP_DURATION, Job(run="").stop_grace_ms),
        retry=_retry(fields),
        checkpoint=checkpoint,
        spot_policy=_spot_policy(fields, asked, checkpoint),
        deadline_ms=deadline_ms,
        work_ms=work_ms,
        price_usd_micro_per_hour_max=fields.get(keys_job.MAX_PRICE),
    )


def _deadline(fields: Fields) -> tuple[int | None, int | None]:
    """The deadline and the work to be done before it, both from the declaration on."""
    deadline_ms, work_ms = fields.get(keys_job.DEADLINE), fields.get(keys_job.WORK)
    if deadline_ms is None:
        if work_ms is not None:
            fields.place.at(keys_job.WORK.name).warn(
                fields.line_of(keys_job.WORK), "it is used only beside a `deadline`"
            )
        return None, work_ms
    known_ms = fields.get(keys_job.MAX_DURATION) if work_ms is None else work_ms
    if known_ms is None:
        raise fields.place.at(keys_job.DEADLINE.name).error(
            fields.line_of(keys_job.DEADLINE),
            "a deadline says nothing without the work that is to be done before it",
            "add `work: 40h`, how long the job takes when nothing disturbs it",
        )
    if known_ms > deadline_ms:
        fields.place.at(keys_job.DEADLINE.name).warn(
            fields.line_of(keys_job.DEADLINE),
            f"{format_duration_ms(known_ms)} of work do not fit into {format_duration_ms(deadline_ms)}: "
            "it will be late, and does not wait for spot capacity",
        )
    return deadline_ms, known_ms


def _spot_policy(fields: Fields, asked: Asked, checkpoint: CheckpointPolicy) -> SpotPolicy:
    """dstack's word, or SkyPilot's `use_spot` for it. Raises SpecError when they disagree."""
    word, use_spot = fields.get(keys_job.SPOT_POLICY), asked.get(keys_common.USE_SPOT)
    said: SpotPolicy | None = None if use_spot is None else "spot" if use_spot else "on-demand"
    if word is not None and said is not None and word != said:
        raise fields.place.at(keys_job.SPOT_POLICY.name).error(
            fields.line_of(keys_job.SPOT_POLICY),
            f"`spot_policy` is {word}, and `resources.use_spot` says {said}",
            "keep one of them",
        )
    policy: SpotPolicy = word or said or "on-demand"
    if word in ("spot", "auto") and not checkpoint.enabled:
        fields.place.at(keys_job.SPOT_POLICY.name).warn(
            fields.line_of(keys_job.SPOT_POLICY),
            "without `checkpoint` an interruption loses all that was done",
        )
    return policy


def _warn_foreign(fields: Fields, key: Key[str], command: str | None) -> None:
    """Say that SkyPilot's variables are empty here: a command that reads them does something else."""
    found = dict.fromkeys(_FOREIGN.findall(command or ""))
    if found:
        fields.place.at(key.name).warn(
            fields.line_of(key),
            f"variables of SkyPilot are not set here ({', '.join(list(found)[:FOREIGN_SHOWN_MAX])}); "
            "use STEERSMAN_NODE_RANK, STEERSMAN_NUM_NODES and their like",
        )


def _inputs(fields: Fields) -> tuple[Input, ...]:
    pairs = fields.get_or(keys_job.INPUTS, ())
    seen: dict[str, str] = {}
    for name, _ in pairs:
        other = seen.setdefault(name.upper(), name)
        if other != name:
            message = f"the inputs {other} and {name} would share one environment variable"
            raise fields.place.at(keys_job.INPUTS.name).error(
                fields.line_below(keys_job.INPUTS, name),
                message,
                "give them names that differ in more than case",
            )
    return tuple(
        Input(name=name, workload=workload, artifact=artifact) for name, (workload, artifact) in pairs
    )


def _retry(fields: Fields) -> Retry:
    read = fields.get(keys_job.RETRY)
    if read is None:
        return Retry()
    if isinstance(read, Retry):
        return read
    default = Retry()
    events = read.get(keys_job.ON_EVENTS)
    codes = read.get(keys_job.EXIT_CODES)
    retry = () if codes is None else codes.get_or(keys_job.CODES_RETRY, ())
    fatal = () if codes is None else codes.get_or(keys_job.CODES_FATAL, ())
    both = sorted(set(retry) & set(fatal))
    if both:
        raise read.place.at(keys_job.EXIT_CODES.name).error(
            read.line_of(keys_job.EXIT_CODES),
            f"the exit code {both[0]} stands among `retry` and among `fatal`",
            "keep it in one of them",
        )
    if events is None and read.written(keys_job.ATTEMPTS):
        read.place.at(keys_job.ATTEMPTS.name).warn(
            read.line_of(keys_job.ATTEMPTS),
            "only interruptions are tried again; add `on_events: [error, interruption]` for failures too",
        )
    return Retry(
        on_events=default.on_events if events is None else _once(events),
        attempts_max=read.get_or(keys_job.ATTEMPTS, default.attempts_max),
        duration_ms_max=read.get(keys_job.RETRY_DURATION),
        exit_codes_retry=tuple(sorted(set(retry))),
        exit_codes_fatal=tuple(sorted(set(fatal))),
    )


def _once(events: Sequence[RetryEvent]) -> tuple[RetryEvent, ...]:
    """The events in the order of the table, each once."""
    return tuple(event for event in keys_job.RETRY_EVENTS if event in events)


def _checkpoint(fields: Fields) -> CheckpointPolicy:
    """The bounds that the user left out give way to what the user wrote, so that they always hold."""
    read = fields.get(keys_job.CHECKPOINT)
    if read is None:
        return CheckpointPolicy()
    default = CheckpointPolicy(enabled=True)
    interval, least, most = (
        read.get(keys_job.INTERVAL),
        read.get(keys_job.INTERVAL_MIN),
        read.get(keys_job.INTERVAL_MAX),
    )
    keys = (keys_job.INTERVAL_MIN, keys_job.INTERVAL, keys_job.INTERVAL_MAX)
    given = zip(keys, (least, interval, most), strict=True)
    ordered = [(key, value) for key, value in given if value is not None]
    for (low, low_ms), (high, high_ms) in pairwise(ordered):
        if low_ms > high_ms:
            raise read.place.at(high.name).error(
                read.line_of(high),
                f"`{low.name}` is {format_duration_ms(low_ms)}, and `{high.name}` is less, "
                f"{format_duration_ms(high_ms)}",
                "`min`, `interval` and `max` must not decrease in this order, as min 10s, max 1h",
            )
    written = [value for _, value in ordered]
    return CheckpointPolicy(
        enabled=True,
        interval_ms=interval,
        interval_ms_min=min([default.interval_ms_min, *written]) if least is None else least,
        interval_ms_max=max([default.interval_ms_max, *written]) if most is None else most,
        keep_last=read.get_or(keys_job.KEEP, default.keep_last),
    )
