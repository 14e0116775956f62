"""What is public is what `__all__` lists, and importing it costs nothing that was not asked for."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from types import ModuleType

import pytest
from tests.arch.sources import PRODUCT, ROOT, SRC, TESTS, dotted

import steersman

SDKS = (
    "apsw",
    "cryptography",
    "litestar",
    "numpy",
    "onnx",
    "onnxruntime",
    "prometheus_client",
    "rich",
    "sklearn",
    "typer",
    "uvicorn",
    "yaml",
)
IMPORT_SECONDS_MAX = 60
PACKAGES = sorted(
    ".".join(source.path.parent.relative_to(SRC).parts)
    for source in PRODUCT
    if source.path.name == "__init__.py" and "__all__" in source.text
)
CLOCKS = frozenset(
    {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "time", "time_ns"}
)
_SPAN = re.compile(r"(?:^|_)(?:elapsed|took|spent|duration_s|seconds_taken)(?:_|$)")


def _loaded(statement: str, *flags: str) -> set[str]:
    """Names of the modules that are loaded after a statement, in a fresh interpreter."""
    show = "print(json.dumps([*sys.modules]))"
    code = f"import json, sys; sys.path.insert(0, {str(SRC)!r}); {statement}; {show}"
    run = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        check=True,
        timeout=IMPORT_SECONDS_MAX,
    )
    names: list[str] = json.loads(run.stdout)
    return set(names)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_whole(name: str) -> None:
    """`__all__` names every public name of a package that has one, in order, and nothing that is missing."""
    module = importlib.import_module(name)
    names = list(module.__all__)
    public = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and not isinstance(value, ModuleType)
    }
    assert names == sorted(names)
    assert public | {"__version__"} >= set(names)
    assert set(names) >= {key for key in public if _made_here(module, key)}


def _made_here(module: ModuleType, key: str) -> bool:
    return str(getattr(getattr(module, key), "__module__", "")).startswith(module.__name__)


def test_the_facade_is_small() -> None:
    """What users of the package may rely on is listed, and a change of it is seen here."""
    assert steersman.__all__ == ["__version__"]


def test_the_version_is_said_once() -> None:
    """The package and its metadata agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert steersman.__version__ == project["version"]


def test_importing_steersman_loads_no_sdk() -> None:
    """`import steersman` loads itself and nothing else of size."""
    loaded = _loaded("import steersman")
    assert loaded & set(SDKS) == set()
    assert {name for name in loaded if name.startswith("steersman")} == {"steersman"}


def test_the_core_loads_no_sdk() -> None:
    """Deciding needs msgspec alone."""
    loaded = _loaded("import steersman.decide.cycle, steersman.state.fold, steersman.model.codec")
    assert loaded & set(SDKS) == set()
    assert "asyncio" not in loaded


def test_the_trainer_loads_the_standard_library_alone() -> None:
    """The SDK works in an environment that holds nothing: isolated, without site packages."""
    loaded = _loaded("import steersman_trainer", "-I", "-S")
    outside = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert outside - {"__main__"} == {"steersman_trainer"}


def _in_assertion(node: ast.AST) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            name = dotted(inner.func)
            if name.startswith("time.") and name.removeprefix("time.") in CLOCKS:
                return True
        if isinstance(inner, ast.Name) and _SPAN.search(inner.id):
            return True
    return False


def test_no_test_asserts_a_time() -> None:
    """A test that compares real time fails on a busy machine and proves nothing on an idle one."""
    found = [
        source.at(node)
        for source in TESTS
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assert) and _in_assertion(node.test)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line", ["assert time.monotonic() - began < 2", "assert elapsed < 1", "assert 0 < took_s < 3"]
)
def test_the_check_of_times_bites(line: str) -> None:
    """The ways in which a time gets into an assertion are seen."""
    (statement,) = ast.parse(line).body
    assert isinstance(statement, ast.Assert)
    assert _in_assertion(statement.test)
