"""What jobs and services are read alike: resources, priority, variables, queue."""

from collections.abc import Sequence

from steersman.model.errors import SpecError
from steersman.model.ids import QueueName
from steersman.model.mig import profiles_of
from steersman.model.resources import ALTERNATIVES, ANY_KIND, WHOLE_MILLI, Resources, Sharing
from steersman.model.units import Amount
from steersman.model.workload import DEFAULT_QUEUE, PRIORITY_DEFAULT, SecretRef
from steersman.spec import keys_common as keys
from steersman.spec.accelerators import WantedAccelerators
from steersman.spec.sections import Fields, Key, T
from steersman.spec.values import sounds_secret


def read_envs(fields: Fields, secrets: Sequence[SecretRef]) -> tuple[tuple[str, str], ...]:
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


def read_queue(fields: Fields) -> QueueName:
    return QueueName(fields.get_or(keys.QUEUE, DEFAULT_QUEUE))


def read_priority(fields: Fields, asked: "Asked") -> int:
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


class Asked:
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
        cpu, memory = self.get(keys.CPUS), self.get(keys.MEMORY_KEY)
        if self.base is not None:
            _warn_range(self.base, keys.CPUS, cpu)
            _warn_range(self.base, keys.MEMORY_KEY, memory)
        wanted = self.get(keys.ACCELERATORS) or WantedAccelerators()
        return Resources(
            cpu_milli=keys.CPU_MILLI_DEFAULT if cpu is None else cpu.least,
            memory_bytes=keys.MEMORY_BYTES_DEFAULT if memory is None else memory.least,
            accelerators=wanted.kinds,
            device_milli=wanted.device_milli,
            sharing=self._sharing(wanted),
            mig_profile=self._mig_profile(wanted),
            infra=self.get(keys.INFRA) or "",
        )

    def _sharing(self, wanted: WantedAccelerators) -> Sharing:
        sharing, profile = self.get(keys.SHARING), self.get(keys.MIG_PROFILE)
        if sharing is None:
            return "auto"
        if wanted.device_milli == WHOLE_MILLI and profile is None:
            message = "`sharing` says how a part of an accelerator is made, and no part is asked for"
            raise self._error(keys.SHARING, message, "ask for a part, as `accelerators: A100:0.25`")
        if sharing == "time-slice" and profile is not None:
            raise self._error(keys.SHARING, "a `mig_profile` is no time slice", "keep one of them")
        kinds = wanted.kinds[0][0].split(ALTERNATIVES) if wanted.kinds else []
        if sharing == "mig" and not any(kind == ANY_KIND or profiles_of(kind) for kind in kinds):
            message = f"{' or '.join(kinds)} has no MIG"
            raise self._error(keys.SHARING, message, "leave it out, or write `sharing: time-slice`")
        return sharing

    def _mig_profile(self, wanted: WantedAccelerators) -> str:
        name = self.get(keys.MIG_PROFILE)
        if name is None:
            return ""
        if not wanted.kinds or wanted.kinds[0][1] > 1 or wanted.device_milli < WHOLE_MILLI:
            message = "a `mig_profile` is an instance of one accelerator of a kind"
            raise self._error(keys.MIG_PROFILE, message, "write `accelerators: A100` beside it")
        kinds = wanted.kinds[0][0].split(ALTERNATIVES)
        known = {kind: [each.name for each in profiles_of(kind)] for kind in kinds}
        if kinds != [ANY_KIND] and not any(name in names for names in known.values()):
            have = next((f"{kind} has {', '.join(names)}" for kind, names in known.items() if names), "")
            hint = have or f"{kinds[0]} is not known to have MIG"
            raise self._error(keys.MIG_PROFILE, f"no {' or '.join(kinds)} has the profile {name}", hint)
        return name

    def _error(self, key: Key[T], message: str, hint: str) -> SpecError:
        fields = self.chosen if self.chosen is not None and self.chosen.written(key) else self.base
        assert fields is not None  # it was written somewhere
        return fields.place.at(key.name).error(fields.line_of(key), message, hint)


def _warn_range(base: Fields, key: Key[Amount], amount: Amount | None) -> None:
    if amount is not None and amount.most is not None and not amount.exact:
        base.place.at(key.name).warn(
            base.line_of(key), "the least amount is asked for; the upper end of the range is not used yet"
        )
