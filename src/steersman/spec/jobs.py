"""One document of kind job to a typed workload.

Theory: the table of keys has checked every key and reads every value; what is left is here: defaults that
the model leaves to us, rules that span several keys, and the words of SkyPilot that mean the same as ours.
"""

import re
from collections.abc import Sequence

from steersman.model.ids import QueueName, WorkloadName
from steersman.model.resources import Resources
from steersman.model.units import Amount
from steersman.model.workload import (
    DEFAULT_QUEUE,
    PRIORITY_DEFAULT,
    Artifact,
    CheckpointPolicy,
    Input,
    Job,
    Retry,
    RetryEvent,
    SecretRef,
    Workload,
)
from steersman.spec import keys
from steersman.spec.nodes import MapNode
from steersman.spec.place import Place
from steersman.spec.sections import Fields, Key, T
from steersman.spec.values import sounds_secret

FOREIGN_SHOWN_MAX = 3
"""How many variables of another tool one warning names."""
_FOREIGN = re.compile(r"\bSKYPILOT_[A-Z_]{1,40}")


def read_job(node: MapNode, place: Place, default_name: str) -> Workload:
    """The workload that a document declares. Raises SpecError."""
    _refuse_pipeline(node, place)
    fields = Fields(keys.JOB_SECTION, node, place)
    asked = _Asked(fields)
    return Workload(
        name=WorkloadName(fields.get_or(keys.NAME_KEY, default_name)),
        body=_body(fields),
        resources=asked.resources(),
        queue=_queue(fields),
        priority=_priority(fields, asked),
        owner=fields.get(keys.OWNER),
        labels=fields.get_or(keys.LABELS, ()),
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


def _body(fields: Fields) -> Job:
    setup, run = fields.get(keys.SETUP), fields.require(keys.RUN)
    _warn_foreign(fields, keys.SETUP, setup)
    _warn_foreign(fields, keys.RUN, run)
    fields.get(keys.DATA)  # nothing in it is honoured yet, and its keys say so
    secrets = fields.get_or(keys.SECRETS, ())
    return Job(
        num_nodes=fields.get_or(keys.NUM_NODES, 1),
        setup=setup,
        run=run,
        workdir=fields.get(keys.WORKDIR),
        envs=_envs(fields, secrets),
        secrets=secrets,
        inputs=_inputs(fields),
        artifacts=tuple(Artifact(name=name, path=path) for name, path in fields.get_or(keys.ARTIFACTS, ())),
        max_duration_ms=fields.get(keys.MAX_DURATION),
        stop_grace_ms=fields.get_or(keys.STOP_DURATION, Job(run="").stop_grace_ms),
        retry=_retry(fields),
        checkpoint=_checkpoint(fields),
    )


def _warn_foreign(fields: Fields, key: Key[str], command: str | None) -> None:
    """Say that SkyPilot's variables are empty here: a command that reads them does something else."""
    found = dict.fromkeys(_FOREIGN.findall(command or ""))
    if found:
        fields.place.at(key.name).warn(
            fields.line_of(key),
            f"variables of SkyPilot are not set here ({', '.join(list(found)[:FOREIGN_SHOWN_MAX])}); "
            "use STEERSMAN_NODE_RANK, STEERSMAN_NUM_NODES and their like",
        )


def _envs(fields: Fields, secrets: Sequence[SecretRef]) -> tuple[tuple[str, str], ...]:
    envs = fields.get_or(keys.ENVS, ())
    place = fields.place.at(keys.ENVS.name)
    taken = {secret.env for secret in secrets}
    for name, value in envs:
        line = fields.line_below(keys.ENVS, name)
        if name in taken:
            message = f"{name} stands among `envs` and among `secrets`"
            raise place.at(name).error(line, message, "keep one of them")
        if value and sounds_secret(name):
            place.at(name).warn(
                line,
                "it is called like a secret, and its value is kept in the journal in clear; "
                f"write `secrets: [{name}]` and give it with `steer secret set {name}`",
            )
    return envs


def _inputs(fields: Fields) -> tuple[Input, ...]:
    pairs = fields.get_or(keys.INPUTS, ())
    seen: dict[str, str] = {}
    for name, _ in pairs:
        other = seen.setdefault(name.upper(), name)
        if other != name:
            message = f"the inputs {other} and {name} would share one environment variable"
            raise fields.place.at(keys.INPUTS.name).error(
                fields.line_below(keys.INPUTS, name), message, "give them names that differ in more than case"
            )
    return tuple(
        Input(name=name, workload=workload, artifact=artifact) for name, (workload, artifact) in pairs
    )


def _queue(fields: Fields) -> QueueName:
    queue = QueueName(fields.get_or(keys.QUEUE, DEFAULT_QUEUE))
    if queue != DEFAULT_QUEUE:
        fields.place.at(keys.QUEUE.name).warn(
            fields.line_of(keys.QUEUE), "the queue is kept as a word: queues have no quota of their own yet"
        )
    return queue


def _priority(fields: Fields, asked: "_Asked") -> int:
    own, below = fields.get(keys.PRIORITY), asked.get(keys.RESOURCES_PRIORITY)
    if own is not None and below is not None and own != below:
        raise fields.place.at(keys.PRIORITY.name).error(
            fields.line_of(keys.PRIORITY),
            f"`priority` says {own} and `resources.priority` says {below}",
            "keep one of them",
        )
    if own is not None:
        return own
    return PRIORITY_DEFAULT if below is None else below


class _Asked:
    """What `resources` asks for: the alternative taken, if any, over the keys beside it."""

    def __init__(self, fields: Fields) -> None:
        self.base = fields.get(keys.RESOURCES)
        self.chosen = None if self.base is None else self._alternative(self.base)

    def _alternative(self, base: Fields) -> Fields | None:
        if base.written(keys.ANY_OF) and base.written(keys.ORDERED):
            raise base.place.at(keys.ORDERED.name).error(
                base.line_of(keys.ORDERED), "`any_of` and `ordered` cannot stand together", "keep one of them"
            )
        return base.get(keys.ANY_OF) or base.get(keys.ORDERED)

    def get(self, key: Key[T]) -> T | None:
        """A key's value: of the alternative if it stands there, else of `resources`. Reads both."""
        base = None if self.base is None else self.base.get(key)
        chosen = None if self.chosen is None else self.chosen.get(key)
        return base if chosen is None else chosen

    def resources(self) -> Resources:
        self.get(keys.INFRA)
        cpu, memory = self.get(keys.CPUS), self.get(keys.MEMORY_KEY)
        if self.base is not None:
            _warn_range(self.base, keys.CPUS, cpu)
            _warn_range(self.base, keys.MEMORY_KEY, memory)
        return Resources(
            cpu_milli=keys.CPU_MILLI_DEFAULT if cpu is None else cpu.least,
            memory_bytes=keys.MEMORY_BYTES_DEFAULT if memory is None else memory.least,
            accelerators=self.get(keys.ACCELERATORS) or (),
        )


def _warn_range(base: Fields, key: Key[Amount], amount: Amount | None) -> None:
    if amount is not None and amount.most is not None and not amount.exact:
        base.place.at(key.name).warn(
            base.line_of(key), "the least amount is asked for; the upper end of the range is not used yet"
        )


def _retry(fields: Fields) -> Retry:
    read = fields.get(keys.RETRY)
    if read is None:
        return Retry()
    if isinstance(read, Retry):
        return read
    default = Retry()
    events = read.get(keys.ON_EVENTS)
    codes = read.get(keys.EXIT_CODES)
    retry = () if codes is None else codes.get_or(keys.CODES_RETRY, ())
    fatal = () if codes is None else codes.get_or(keys.CODES_FATAL, ())
    both = sorted(set(retry) & set(fatal))
    if both:
        raise read.place.at(keys.EXIT_CODES.name).error(
            read.line_of(keys.EXIT_CODES),
            f"the exit code {both[0]} stands among `retry` and among `fatal`",
            "keep it in one of them",
        )
    if events is None and read.written(keys.ATTEMPTS):
        read.place.at(keys.ATTEMPTS.name).warn(
            read.line_of(keys.ATTEMPTS),
            "only interruptions are tried again; add `on_events: [error, interruption]` for failures too",
        )
    return Retry(
        on_events=default.on_events if events is None else _once(events),
        attempts_max=read.get_or(keys.ATTEMPTS, default.attempts_max),
        duration_ms_max=read.get(keys.RETRY_DURATION),
        exit_codes_retry=tuple(sorted(set(retry))),
        exit_codes_fatal=tuple(sorted(set(fatal))),
    )


def _once(events: Sequence[RetryEvent]) -> tuple[RetryEvent, ...]:
    """The events in the order of the table, each once."""
    return tuple(event for event in keys.RETRY_EVENTS if event in events)


def _checkpoint(fields: Fields) -> CheckpointPolicy:
    """The bounds that the user left out give way to what the user wrote, so that they always hold."""
    read = fields.get(keys.CHECKPOINT)
    if read is None:
        return CheckpointPolicy()
    default = CheckpointPolicy(enabled=True)
    interval, least, most = read.get(keys.INTERVAL), read.get(keys.INTERVAL_MIN), read.get(keys.INTERVAL_MAX)
    written = [value for value in (least, interval, most) if value is not None]
    if written != sorted(written):
        raise read.place.error(
            read.line,
            "`min`, `interval` and `max` must not decrease in this order",
            "as min 10s, max 1h",
        )
    return CheckpointPolicy(
        enabled=True,
        interval_ms=interval,
        interval_ms_min=min([default.interval_ms_min, *written]) if least is None else least,
        interval_ms_max=max([default.interval_ms_max, *written]) if most is None else most,
        keep_last=read.get_or(keys.KEEP, default.keep_last),
    )
