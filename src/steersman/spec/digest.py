"""One name for one declaration: equal declarations have equal digests, whatever text they came from."""

import hashlib

import msgspec

from steersman.model.service import Service
from steersman.model.workload import Workload

_encoder = msgspec.json.Encoder(order="deterministic")


def digest(declared: Workload | Service) -> str:
    """``sha256:<hex>`` of the declaration's canonical bytes.

    A later build that adds a field to the declaration gives another digest; whether anything changed for
    the user is for `diff` to say.
    """
    return f"sha256:{hashlib.sha256(_encoder.encode(declared)).hexdigest()}"
