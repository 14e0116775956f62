"""Which adapters a control plane is made of: the only place that names them all."""

import contextlib
import importlib.util
import secrets as chance
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from steersman.app.clock import SystemClock
from steersman.app.machine import boot_id
from steersman.app.settings import Settings
from steersman.app.versions import build, libraries
from steersman.dataplane.cluster import bridge_argv
from steersman.dataplane.gateway import gateway_argv
from steersman.dataplane.replica import replica_argv
from steersman.dataplane.shim import shim_argv
from steersman.drivers.local import LocalDriver, LocalGateways, LocalSettings
from steersman.drivers.ray import RayDriver, RaySettings
from steersman.engine.parts import Parts
from steersman.guard.authority import Authority
from steersman.guard.secrets import Secrets
from steersman.journal.sqlite import SqliteJournal
from steersman.model.codec import decode_event
from steersman.model.errors import JournalCorrupt
from steersman.model.events import HomeCreated
from steersman.ports import run_dir
from steersman.ports.journal import Journal
from steersman.sensors.clusters import ClusterSensor
from steersman.sensors.figures import Figures
from steersman.sensors.gateway import GatewaySensor
from steersman.sensors.prometheus import PrometheusSensor
from steersman.sensors.runs import RunSensor

HOME_ID_BYTES = 8
TRAINER_PACKAGE = "steersman_trainer"
DIGEST_PREFIX = "sha256:"


class Wired(NamedTuple):
    """A home that this process owns. `leave` lets go of its clusters, before the event loop ends."""

    parts: Parts
    secrets: Secrets
    figures: Figures
    leave: Callable[[], Awaitable[None]]


@contextlib.contextmanager
def wired(settings: Settings, environ: Mapping[str, str]) -> Iterator[Wired]:
    """Take a home and give it up at the end. `environ` is what jobs inherit.

    Raises JournalLocked within a second when another control plane owns it, and the other errors of opening
    a journal.
    """
    with contextlib.ExitStack() as held:
        journal = SqliteJournal.open(settings.home)
        held.callback(journal.close)
        home_id = _home_id(journal)
        driver = LocalDriver(
            LocalSettings(
                home=settings.home,
                home_id=home_id,
                shim_argv=shim_argv(sys.executable),
                trainer_path=_trainer_path(),
                programs={
                    "replica": replica_argv(sys.executable),
                    "gateway": gateway_argv(sys.executable, settings.home),
                },
                environ=environ,
            )
        )
        held.callback(driver.close)
        clock, figures = SystemClock(), Figures()
        authority = Authority(settings.home, home_id, clock.now_ms)
        ray = RayDriver(
            RaySettings(
                home=settings.home,
                home_id=home_id,
                python=sys.executable,
                bridge_argv=partial(bridge_argv, settings.home),
                environ=environ,
                open_secret=Secrets(settings.home).get,
                certify=authority.replica,
            )
        )
        gateways = LocalGateways(settings.home, authority.keep_gateway)
        sealed = Secrets(settings.home)
        parts = Parts(
            journal=journal,
            drivers={driver.name: driver, ray.name: ray},
            sensors=(
                RunSensor(driver),
                RunSensor(ray),
                ClusterSensor(ray.name, ray),
                GatewaySensor(gateways, clock, figures),
                PrometheusSensor(clock),
            ),
            clock=clock,
            build=build(),
            boot_id=boot_id(),
            open_secret=sealed.get,
            artifact_path=lambda digest: artifact_path(settings.home, digest),
            new_home_id=lambda: home_id,
            gateways=gateways,
            libraries=libraries(),
        )
        yield Wired(parts=parts, secrets=sealed, figures=figures, leave=ray.close)


def artifact_path(home: Path, digest: str) -> Path:
    """The file that holds the bytes of a digest."""
    return home / run_dir.ARTIFACTS / "sha256" / digest.removeprefix(DIGEST_PREFIX)


def _home_id(journal: Journal) -> str:
    """The home's own name: from its first event, or made now for an empty journal."""
    first = next(iter(journal.read(0, 1)), None)
    if first is None:
        return chance.token_hex(HOME_ID_BYTES)
    event = decode_event(first.type, first.version, first.body)
    if not isinstance(event, HomeCreated):
        raise JournalCorrupt(f"the journal begins with {first.type!r} and not with the making of the home")
    return event.home_id


def _trainer_path() -> Path | None:
    found = importlib.util.find_spec(TRAINER_PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent
