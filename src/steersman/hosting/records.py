"""The files of a rank's folder as records. Unknown fields are tolerated: other versions write some."""

from pathlib import Path
from typing import TypeVar

import msgspec

from steersman.hosting.files import JSON_BYTES_MAX, read_bytes
from steersman.model.errors import DriverError
from steersman.ports.driver import ArtifactReport

__all__ = ["JSON_BYTES_MAX", "Exit", "Manifest", "Order", "Progress", "Ready", "Started", "read"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """``order.json`` as an observer needs it. `driver` is the one whose rank it is."""

    decision: str
    epoch: int
    checkpoint_dir: str
    driver: str = "local"
    cluster: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """``started.json`` as the driver needs it."""

    pid: int
    at_ms: int
    limits: str
    phase: str


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """``exit.json``. `cause` is checked against the report's own list when it is copied there."""

    exit_code: int | None
    signal: int | None
    cause: str
    detail: str
    at_ms: int
    stop_delivered: bool
    artifacts: tuple[ArtifactReport, ...] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """``progress.json``."""

    step: int = 0
    metrics: dict[str, float] = {}
    completed: bool = False


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """``ready.json`` of a replica; `address` is empty when it listens on its socket."""

    at_ms: int
    load_ms: int = 0
    address: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json`` of a checkpoint."""

    step: int
    at_ms: int
    save_ms: int
    run: str


T = TypeVar("T")


def read(path: Path, kind: type[T]) -> T | None:
    """The file's content, or None when it is not there. Raises DriverError when it is damaged."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DriverError(f"{path} is damaged: {error}") from error
