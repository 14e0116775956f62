"""What an engine is built from. Live, in simulation and in tests only these differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steersman.model.policy import Policy
from steersman.ports.clock import Clock
from steersman.ports.driver import Driver
from steersman.ports.gateway import Gateways
from steersman.ports.journal import Journal
from steersman.ports.sensor import Sensor


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The adapters of one home.

    `open_secret` gives a secret's value by name and raises SteersmanError when there is none. `artifact_path`
    gives the file that holds the bytes of a digest. `reach` is called with the name of every boundary the
    engine passes; chaos tests end the process there. `policy` is what the deciders obey from the start on;
    None: what the journal says, and for a new home the default.
    """

    journal: Journal
    drivers: Mapping[str, Driver]
    sensors: Sequence[Sensor]
    clock: Clock
    build: str
    boot_id: str
    open_secret: Callable[[str], str]
    artifact_path: Callable[[str], Path]
    new_home_id: Callable[[], str]
    gateways: Gateways
    policy: Policy | None = None
    libraries: tuple[tuple[str, str], ...] = ()
    reach: Callable[[str], None] = lambda _: None
