"""Exact paths, and nothing else.

All paths that exist are in one dict, made anew with each configuration. A path is compared byte for byte and
never decoded, joined or normalised, so that no escape, ``..`` or empty segment means anything.
"""

import re
from enum import IntEnum
from typing import Final

from steersman.dataplane.gateway.contract import Entry, Exchange
from steersman.ports.gateway import GatewayConfig

GET: Final = b"GET"
POST: Final = b"POST"


class Kind(IntEnum):
    """What a path answers. PREDICT and INFER take a body; LIVE and READY need no key."""

    LIVE = 0
    READY = 1
    SERVER = 2
    MODEL = 3
    MODEL_READY = 4
    PREDICT = 5
    INFER = 6


class Route:
    """One path. `revision` None: whichever the service sends new calls to."""

    __slots__ = ("body_bytes_max", "entry", "kind", "method", "revision", "service", "timeout_s")

    def __init__(
        self, kind: Kind, service: str = "", entry: Entry | None = None, revision: int | None = None
    ) -> None:
        self.kind = kind
        self.method = POST if kind >= Kind.PREDICT else GET
        self.service = service
        self.entry = entry
        self.revision = revision
        limits = entry.config.limits if entry is not None else None
        self.body_bytes_max = limits.body_bytes_max if limits and kind >= Kind.PREDICT else 0
        self.timeout_s = limits.timeout_ms / 1000 if limits else 0.0

    @property
    def open(self) -> bool:
        """Whether it answers callers without a key, whatever the configuration."""
        return self.kind <= Kind.READY


Routes = dict[bytes, Route]

_SERVICE: Final = re.compile(rb"/(?:predict|v2/models)/([a-z0-9-]{1,63})(?:/.*)?")


def build(config: GatewayConfig | None, exchange: Exchange) -> Routes:
    """All paths of a configuration."""
    routes = {
        b"/v2": Route(Kind.SERVER),
        b"/v2/health/live": Route(Kind.LIVE),
        b"/v2/health/ready": Route(Kind.READY),
    }
    for service in config.services if config is not None else ():
        entry = exchange.entry(service.name)
        if entry is None:
            continue
        name = service.name
        routes[b"/predict/" + name.encode()] = Route(Kind.PREDICT, name, entry)
        versions: list[tuple[str, int | None]] = [(f"/v2/models/{name}", None)]
        versions += [
            (f"/v2/models/{name}/versions/{one.revision}", one.revision) for one in service.revisions
        ]
        for path, revision in versions:
            for suffix, kind in (("", Kind.MODEL), ("/ready", Kind.MODEL_READY), ("/infer", Kind.INFER)):
                routes[(path + suffix).encode()] = Route(kind, name, entry, revision)
    return routes


def service_of(path: bytes) -> str | None:
    """The service that a path would be of, whether there is one or not."""
    match = _SERVICE.fullmatch(path)
    return None if match is None else match.group(1).decode()
