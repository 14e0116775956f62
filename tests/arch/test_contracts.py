"""The house keeps its import contracts, and each contract notices when it is broken.

A contract that can never fail proves nothing. So the source is copied, one violation is written into the
copy, and the contracts that break must be those, and no others.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.arch.contracts import CONTRACT_IDS, CONTRACTS, ROOT, broken_contracts

DECIDE = ROOT / "src" / "steersman" / "decide"


class Seed(NamedTuple):
    """A violation: lines added to a file (which may be new), and the contracts it must break."""

    name: str
    file: str
    lines: str
    breaks: frozenset[str]


def _seed(name: str, file: str, lines: str, *breaks: str) -> Seed:
    return Seed(name, file, lines, frozenset(breaks))


SEEDS = (
    _seed(
        "a replica that knows the model",
        "steersman/dataplane/replica/errors.py",
        "from steersman.model import errors",
        "replica-alone",
    ),
    _seed(
        "a replica that knows the gateway",
        "steersman/dataplane/replica/errors.py",
        "from steersman.dataplane.gateway import call",
        "dataplane-strangers",
    ),
    _seed(
        "numbers in the gateway",
        "steersman/dataplane/gateway/codec/tensors.py",
        "import numpy",
        "sdk-numbers",
    ),
    _seed(
        "an engine where arrivals are drawn",
        "steersman/sim/replay/poisson.py",
        "import onnxruntime",
        "sdk-inference",
    ),
    _seed("a parser in the control API", "steersman/app/http/gate.py", "import httptools", "sdk-data-plane"),
    _seed(
        "traces on the wire",
        "steersman/dataplane/gateway/http/wire.py",
        "from opentelemetry import trace",
        "sdk-traces",
    ),
    _seed(
        "the cluster's engine in the driver", "steersman/drivers/ray/driver.py", "import ray.util", "sdk-ray"
    ),
    _seed(
        "a lazy import from the model up to the engine",
        "steersman/model/ids.py",
        "def up():\n    from steersman.engine import engine\n    return engine",
        "layers",
        "deciders-strangers",  # for the engine knows the cycle, and the cycle knows them all
    ),
    _seed("a package without a place", "steersman/misc/__init__.py", '"""Misc."""', "layers"),
    _seed("a package that has a place and was missing", "steersman/artifacts/__init__.py", '"""Files."""'),
    _seed(
        "a sensor that knows a driver",
        "steersman/sensors/runs.py",
        "from steersman.drivers.local import LocalDriver",
        "layers",
    ),
    _seed("a clock in a decider", "steersman/decide/admit.py", "import time", "core-pure"),
    _seed("a lazy clock in the fold", "steersman/state/fold.py", "def now():\n    import time", "core-pure"),
    _seed("a file in the spec", "steersman/spec/digest.py", "from pathlib import Path", "core-pure"),
    _seed(
        "a decider that knows a decider",
        "steersman/decide/admit.py",
        "from steersman.decide.recover import recover",
        "deciders-strangers",
        "cycle-alone",
    ),
    _seed(
        "an engine that knows a decider",
        "steersman/engine/preview.py",
        "from steersman.decide.schedule import schedule",
        "cycle-alone",
    ),
    _seed(
        "a decider that borrows the parts of another",
        "steersman/decide/recover.py",
        "from steersman.decide.preempt import lost_work",
        "parts-of-schedule",
    ),
    _seed(
        "a decider that does the accounts of queues",
        "steersman/decide/recover.py",
        "from steersman.decide.quota import Book",
        "quotas-of-schedule",
    ),
    _seed(
        "a decider that orders jobs for itself",
        "steersman/decide/admit.py",
        "from steersman.decide.order import choose",
        "order-of-jobs",
    ),
    _seed(
        "a decider that borrows what spot has learned",
        "steersman/decide/admit.py",
        "from steersman.decide.hazard import hazards",
        "parts-of-recover",
    ),
    _seed(
        "a decider that forecasts for itself",
        "steersman/decide/recover.py",
        "from steersman.decide.forecast import NOTHING",
        "parts-of-capacity",
    ),
    _seed(
        "a decider that takes a value of the packer's",
        "steersman/decide/recover.py",
        "from steersman.decide.pack_stock import WHOLE",
        "parts-of-pack",
    ),
    _seed(
        "a vote that is counted elsewhere",
        "steersman/decide/recover.py",
        "from steersman.decide.votes import votes",
        "parts-of-autoscale",
    ),
    _seed(
        "a driver that decides",
        "steersman/hosting/files.py",
        "from steersman.decide.cycle import decide",
        "adapters-never-decide",
    ),
    _seed(
        "a journal that folds",
        "steersman/journal/rows.py",
        "from steersman.state.fold import fold",
        "adapters-never-decide",
    ),
    _seed(
        "a driver that knows a driver",
        "steersman/drivers/other/__init__.py",
        "from steersman.drivers.local import LocalDriver",
        "drivers-strangers",
    ),
    _seed(
        "an engine that knows a driver",
        "steersman/engine/stats.py",
        "from steersman.drivers.local import LocalDriver",
        "ports-only",
    ),
    _seed(
        "a simulation that knows the journal on disk",
        "steersman/sim/clock.py",
        "from steersman.journal import SqliteJournal",
        "ports-only",
    ),
    _seed(
        "a shim that knows the model",
        "steersman/dataplane/shim/logs.py",
        "from steersman.model import errors",
        "shim-alone",
    ),
    _seed("names of files that need a library", "steersman/ports/run_dir.py", "import msgspec", "shim-alone"),
    _seed(
        "a trainer that needs Steersman",
        "steersman_trainer/names.py",
        "from steersman.ports import run_dir",
        "trainer-apart",
    ),
    _seed(
        "Steersman that needs the trainer",
        "steersman/app/clock.py",
        "import steersman_trainer",
        "trainer-apart",
    ),
    _seed(
        "a lazy cycle in one package",
        "steersman/state/lifecycle.py",
        "def up():\n    from steersman.state.fold import fold\n    return fold",
        "no-cycles",
    ),
    _seed("SQLite in the app", "steersman/app/clock.py", "import apsw", "sdk-sqlite"),
    _seed("ciphers in the app", "steersman/app/clock.py", "import cryptography.fernet", "sdk-ciphers"),
    _seed("YAML in the app", "steersman/app/clock.py", "import yaml", "sdk-yaml"),
    _seed("metrics elsewhere", "steersman/app/clock.py", "import prometheus_client", "sdk-metrics"),
    _seed("the web in the engine", "steersman/engine/stats.py", "import litestar", "sdk-http"),
    _seed("the server elsewhere", "steersman/app/clock.py", "import uvicorn", "sdk-server"),
    _seed("a terminal in the engine", "steersman/engine/stats.py", "from rich import print", "sdk-terminal"),
)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source as it is, elsewhere."""
    source = tmp_path_factory.mktemp("house") / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    return source


@pytest.fixture(scope="module")
def already_broken(copied: Path) -> frozenset[str]:
    """What the untouched source breaks; `test_the_house_keeps_its_contracts` says that it is nothing."""
    return broken_contracts(copied)


@pytest.fixture
def seeded(copied: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The source with one violation in it."""
    seed: Seed = request.param
    file = copied / seed.file
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_bytes((before or b"") + f"\n{seed.lines}\n".encode())
    yield copied
    if before is not None:
        file.write_bytes(before)
    else:
        shutil.rmtree(file.parent)


def test_the_house_keeps_its_contracts() -> None:
    """The source as it stands breaks no contract."""
    assert broken_contracts(ROOT / "src") == frozenset()


@pytest.mark.parametrize(
    ("seeded", "seed"), [(one, one) for one in SEEDS], indirect=["seeded"], ids=[one.name for one in SEEDS]
)
def test_a_violation_breaks_its_contract_and_no_other(
    seeded: Path, seed: Seed, already_broken: frozenset[str]
) -> None:
    """Each seeded violation breaks exactly the contracts that speak of it."""
    assert broken_contracts(seeded) - already_broken == seed.breaks - already_broken


def test_every_contract_is_broken_by_a_seed() -> None:
    """No contract goes without a proof that it can break."""
    assert {name for seed in SEEDS for name in seed.breaks} == set(CONTRACT_IDS.values())


def test_every_module_of_decide_is_named_in_a_contract() -> None:
    """A new decider must be placed: a stranger to the others, or a part of one of them."""
    named = {
        module
        for contract in CONTRACTS
        for field in ("modules", "protected_modules", "allowed_importers")
        for module in contract.get(field, ())
        if module.startswith("steersman.decide.")
    }
    modules = {f"steersman.decide.{path.stem}" for path in DECIDE.glob("*.py") if path.stem != "__init__"}
    assert named == modules
