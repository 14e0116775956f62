"""One document of kind queue to a typed queue."""

from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches

from steersman.model.errors import SpecError
from steersman.model.ids import QueueName
from steersman.model.queue import ACCELERATORS, CPUS, GPU_HOUR, MEMORY, Budget, Queue, Quota
from steersman.model.resources import WHOLE_MILLI
from steersman.model.units import parse_cpu, parse_memory
from steersman.spec import keys_common
from steersman.spec import keys_queue as keys
from steersman.spec.nodes import MapNode
from steersman.spec.place import Place, show
from steersman.spec.sections import Fields, Key

OURS = {word: word for word in (CPUS, MEMORY, ACCELERATORS)} | {
    "cpu": CPUS,
    "mem": MEMORY,
    "gpu": ACCELERATORS,
    "gpus": ACCELERATORS,
}
"""Resources by their names, and by those of other tools."""
NEAR = 0.8
"""How alike a name must be to be taken for a slip; ``TPU`` is none for ``cpu``."""
DEVICES_MAX = 1_000_000
WEIGHT_MILLI_MAX = 1_000_000_000
MONEY_MAX = Decimal(10) ** 12


def read_queue_document(node: MapNode, place: Place, default_name: str) -> Queue:
    """The queue that a document declares. Raises SpecError."""
    fields = Fields(keys.QUEUE_SECTION, node, place)
    quotas = tuple(_quota(each) for each in fields.get_or(keys.QUOTAS, ()))
    names = [quota.resource for quota in quotas]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise place.at(keys.QUOTAS.name).error(
            fields.line_of(keys.QUOTAS), f"there are two quotas of {twice}", "keep one of them"
        )
    cohort, rules = fields.get_or(keys.COHORT, ""), fields.get(keys.PREEMPTION)
    if not cohort:
        _check_alone(fields, quotas)
    default = Queue(name=QueueName(default_name))
    return Queue(
        name=QueueName(fields.get_or(keys_common.NAME_KEY, default_name)),
        cohort=cohort,
        weight_milli=_scaled(fields, keys.WEIGHT, 1000, WEIGHT_MILLI_MAX) or default.weight_milli,
        quotas=tuple(sorted(quotas, key=lambda quota: quota.resource)),
        budget=read_budget(fields.get(keys.BUDGET)),
        reclaim=default.reclaim if rules is None else rules.get_or(keys.RECLAIM, default.reclaim),
        within=default.within if rules is None else rules.get_or(keys.WITHIN, default.within),
    )


def read_budget(fields: Fields | None) -> Budget:
    """What may be spent. Raises SpecError."""
    if fields is None:
        return Budget()
    most = int(MONEY_MAX) * 1_000_000
    if not (fields.written(keys.USD) or fields.written(keys.GPU_HOURS)):
        fields.place.warn(
            fields.line, f"it bounds nothing: give `{keys.USD.name}` or `{keys.GPU_HOURS.name}`"
        )
    return Budget(
        usd_micro=_scaled(fields, keys.USD, 1_000_000, most),
        device_ms=_scaled(fields, keys.GPU_HOURS, GPU_HOUR, int(MONEY_MAX) * GPU_HOUR),
        period_ms=fields.get(keys.PERIOD),
    )


def _scaled(fields: Fields, key: Key[str], scale: int, most: int) -> int | None:
    text = fields.get(key)
    if text is None:
        return None
    value = int(Decimal(text) * scale)
    if not 0 < value <= most:
        hint = f"write a number from {Decimal(1) / scale:f} to {most // scale:,}"
        raise fields.place.at(key.name).error(fields.line_of(key), f"{show(text)} is out of range", hint)
    return value


def _check_alone(fields: Fields, quotas: Sequence[Quota]) -> None:
    """A queue without a cohort has nobody to borrow from and nobody to lend to."""
    for quota in quotas:
        for key, limit in ((keys.BORROWING, quota.borrowing_limit), (keys.LENDING, quota.lending_limit)):
            if limit is not None:
                raise fields.place.at(keys.QUOTAS.name).error(
                    fields.line_of(keys.QUOTAS),
                    f"the quota of {quota.resource} has a `{key.name}`, and the queue is in no cohort",
                    f"give the queue a `{keys.COHORT.name}`, or leave `{key.name}` out",
                )


def _quota(fields: Fields) -> Quota:
    resource = _resource(fields)
    nominal = _amount(fields, keys.NOMINAL, resource, fields.require(keys.NOMINAL))
    borrowing, lending = fields.get(keys.BORROWING), fields.get(keys.LENDING)
    found = Quota(
        resource=resource,
        nominal=nominal,
        borrowing_limit=None if borrowing is None else _amount(fields, keys.BORROWING, resource, borrowing),
        lending_limit=None if lending is None else _amount(fields, keys.LENDING, resource, lending),
    )
    if found.lending_limit is not None and found.lending_limit > nominal:
        raise fields.place.at(keys.LENDING.name).error(
            fields.line_of(keys.LENDING),
            f"{show(lending or '')} is more than the `{keys.NOMINAL.name}`: a queue lends what is its own",
            f"write at most {fields.require(keys.NOMINAL)}",
        )
    return found


def _resource(fields: Fields) -> str:
    """A resource by its own name; another tool's name for one of ours would be a kind that nobody has."""
    name = fields.require(keys.RESOURCE)
    if name in OURS.values():
        return name
    near = get_close_matches(name.lower(), OURS, n=1, cutoff=NEAR)
    if near:
        raise fields.place.at(keys.RESOURCE.name).error(
            fields.line_of(keys.RESOURCE), f"no resource is called {show(name)}", f"write {OURS[near[0]]}"
        )
    return name


def _amount(fields: Fields, key: Key[str], resource: str, text: str) -> int:
    """Millicores, bytes or thousandths of a device; 0 is an amount too."""
    place, line = fields.place.at(key.name), fields.line_of(key)
    if text == "0":
        return 0
    if resource not in (CPUS, MEMORY):
        if (
            not text.isascii()
            or not text.isdecimal()
            or not 0 < int(text[:9]) <= DEVICES_MAX
            or len(text) > 9
        ):
            raise place.error(
                line, f"{show(text)} is not a number of accelerators", f"write 0 to {DEVICES_MAX:,}"
            )
        return int(text) * WHOLE_MILLI
    try:
        amount = parse_cpu(text) if resource == CPUS else parse_memory(text)
    except SpecError as error:
        raise place.located(line, error) from error
    if not amount.exact:
        raise place.error(line, "a quota is one amount, not a range", "write one number")
    return amount.least
