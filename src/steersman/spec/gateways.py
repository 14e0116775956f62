"""One document of kind gateway to a typed gateway.

Beyond loopback nobody is served without an API key: there `keys` is ``required`` when it is left out, and
``optional`` is refused.
"""

from steersman.model.service import Gateway
from steersman.spec import keys_common
from steersman.spec import keys_gateway as keys
from steersman.spec.nodes import MapNode
from steersman.spec.place import Place
from steersman.spec.sections import Fields
from steersman.spec.service_values import is_every, is_loopback


def read_gateway(node: MapNode, place: Place) -> Gateway:
    """The gateway that a document declares. Raises SpecError."""
    fields = Fields(keys.GATEWAY_SECTION, node, place)
    default = Gateway()
    address = fields.get_or(keys.ADDRESS, default.address)
    certificate, private_key = _tls(fields)
    hosts = tuple(dict.fromkeys(host.lower() for host in fields.get_or(keys.HOSTS, ())))
    connections_max, per_address_max = _connections(fields)
    _warn_beyond(fields, address, encrypted=certificate is not None, named=bool(hosts))
    return Gateway(
        name=fields.get_or(keys_common.NAME_KEY, default.name),
        address=address,
        port=fields.get_or(keys.PORT, default.port),
        workers=fields.get_or(keys.WORKERS, default.workers),
        keys=_rule(fields, address),
        hosts=hosts,
        certificate=certificate,
        private_key=private_key,
        connections_max=connections_max,
        connections_per_address_max=per_address_max,
    )


def _rule(fields: Fields, address: str) -> keys.KeyRule:
    rule = fields.get(keys.KEYS)
    if is_loopback(address):
        return Gateway().keys if rule is None else rule
    if rule == "optional":
        raise fields.place.at(keys.KEYS.name).error(
            fields.line_of(keys.KEYS),
            f"on {address}, which others can reach, nobody is served without an API key",
            "write `keys: required`, or `address: 127.0.0.1`",
        )
    return "required"


def _tls(fields: Fields) -> tuple[str | None, str | None]:
    tls = fields.get(keys.TLS)
    return (None, None) if tls is None else (tls.require(keys.CERTIFICATE), tls.require(keys.PRIVATE_KEY))


def _connections(fields: Fields) -> tuple[int, int]:
    """How many in all and from one address; what is left out gives way to what is written."""
    default = Gateway()
    every, each = fields.get(keys.CONNECTIONS), fields.get(keys.PER_ADDRESS)
    if every is None:
        return max(default.connections_max, each or 0), each or default.connections_per_address_max
    if each is None:
        return every, min(every, default.connections_per_address_max)
    if each > every:
        raise fields.place.at(keys.PER_ADDRESS.name).error(
            fields.line_of(keys.PER_ADDRESS),
            f"{each} connections from one address are more than `connections_max`, {every}",
            "make it smaller",
        )
    return every, each


def _warn_beyond(fields: Fields, address: str, *, encrypted: bool, named: bool) -> None:
    if is_loopback(address):
        return
    place, line = fields.place.at(keys.ADDRESS.name), fields.line_of(keys.ADDRESS)
    if not encrypted:
        place.warn(line, "API keys and requests cross the network in clear; give `tls`")
    if is_every(address) and not named:
        place.warn(line, "callers who use a name of this machine are refused; list its names in `hosts`")
