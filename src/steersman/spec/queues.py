"""One document of kind queue to a typed queue."""

from decimal import Decimal

from steersman.model.errors import SpecError
from steersman.model.ids import QueueName
from steersman.model.queue import CPUS, GPU_HOUR, MEMORY, Budget, Queue, Quota
from steersman.model.resources import WHOLE_MILLI
from steersman.model.units import parse_cpu, parse_memory
from steersman.spec import keys_common
from steersman.spec import keys_queue as keys
from steersman.spec.nodes import MapNode
from steersman.spec.place import Place, show
from steersman.spec.sections import Fields, Key

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


def _quota(fields: Fields) -> Quota:
    resource = fields.require(keys.RESOURCE)
    nominal = _amount(fields, keys.NOMINAL, resource, fields.require(keys.NOMINAL))
    borrowing, lending = fields.get(keys.BORROWING), fields.get(keys.LENDING)
    return Quota(
        resource=resource,
        nominal=nominal,
        borrowing_limit=None if borrowing is None else _amount(fields, keys.BORROWING, resource, borrowing),
        lending_limit=None if lending is None else _amount(fields, keys.LENDING, resource, lending),
    )


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
