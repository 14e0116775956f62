"""The core cannot reach the world by a name that no import shows: built-in functions, classes with clocks.

The contracts in pyproject.toml forbid imports. What is left is what Python gives without one, and what
legitimate types carry with them. Everything here is read off the syntax tree, so that a comment or a text
that speaks of `open(` is no violation, and a violation in a branch that never runs is one.
"""

import ast
import sys
from collections.abc import Iterator

import pytest
from tests.arch.sources import PRODUCT, ROOT, SRC, Source, dotted

BUILTINS_BANNED = {
    "open": "the app reads bytes and hands them in",
    "hash": "differs from process to process",
    "id": "an address: differs from run to run",
    "print": "words are made by explain and written by the app",
    "input": "the core asks nobody",
    "eval": "no code from text",
    "exec": "no code from text",
    "compile": "no code from text",
    "__import__": "imports stand at the head of a file",
    "globals": "no global state",
    "breakpoint": "for a debugger",
}
MEMBERS_BANNED = {
    "now": "time is snapshot.now_ms",
    "utcnow": "time is snapshot.now_ms",
    "today": "time is snapshot.now_ms",
    "cache": "a cache is hidden state",
    "lru_cache": "a cache is hidden state",
    "cached_property": "a cache is hidden state",
    "random": "chance is a seeded value in the snapshot",
    "environ": "the environment is read by the app",
    "getenv": "the environment is read by the app",
}
SETTINGS_READERS = frozenset(
    {
        "src/steersman/app/cli",
        "src/steersman/app/settings.py",
        "src/steersman/app/server.py",
        "src/steersman/dataplane/cluster/actors.py",
        "src/steersman/dataplane/cluster/api.py",
        "src/steersman/dataplane/gateway/main.py",
        "src/steersman/dataplane/replica/main.py",
        "src/steersman/dataplane/shim/main.py",
        "src/steersman_trainer/run.py",
    }
)
"""Entry points: each reads its own environment and arguments. Nothing else does."""
STANDARD_LIBRARY_ONLY = (
    "src/steersman_trainer/",
    "src/steersman/dataplane/shim/",
    "src/steersman/ports/run_dir.py",
)


def _reaches(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in BUILTINS_BANNED:
            yield f"{source.at(node)}: {node.id}: {BUILTINS_BANNED[node.id]}"
        elif isinstance(node, ast.Attribute) and node.attr in MEMBERS_BANNED and _is_library(node):
            yield f"{source.at(node)}: {dotted(node)}: {MEMBERS_BANNED[node.attr]}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in MEMBERS_BANNED:
                    yield f"{source.at(node)}: {alias.name}: {MEMBERS_BANNED[alias.name]}"


def _is_library(node: ast.Attribute) -> bool:
    owner = dotted(node.value).rpartition(".")[2]
    return owner in ("datetime", "date", "functools", "numpy", "np", "os")


def test_the_core_reaches_no_world() -> None:
    """Deciders get everything from the snapshot, so that a journal replays to the same bytes."""
    assert [line for source in PRODUCT if source.in_core for line in _reaches(source)] == []


def test_the_core_is_looked_at() -> None:
    """A test that reads nothing would pass."""
    looked_at = {source.path.parent.name for source in PRODUCT if source.in_core}
    assert {"model", "spec", "state", "decide", "explain"} <= looked_at


@pytest.mark.parametrize(
    "line",
    [
        "open('x')",
        "seed = hash(name)",
        "sorted(things, key=id)",
        "print(1)",
        "datetime.now()",
        "datetime.datetime.utcnow()",
        "from datetime import datetime; date.today()",
        "from functools import cache",
        "functools.lru_cache(f)",
        "np.random.default_rng()",
        "def f():\n    from functools import lru_cache",
    ],
)
def test_the_check_of_the_core_bites(line: str) -> None:
    """Each way to the world is seen, aliases and lazy imports too."""
    assert list(_reaches(Source(ROOT / "planted.py", line, ast.parse(line)))) != []


@pytest.mark.parametrize(
    "line", ["run.id", "state.hash", "'open('", "# print(", "snapshot.now_ms", "def id_of(): ..."]
)
def test_the_check_of_the_core_is_not_blind(line: str) -> None:
    """What only looks alike is left alone."""
    assert list(_reaches(Source(ROOT / "planted.py", line, ast.parse(line)))) == []


def test_nothing_keeps_global_state() -> None:
    """No function rebinds a name of its module."""
    found = [
        source.at(node)
        for source in PRODUCT
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Global)
    ]
    assert found == []


def test_only_entry_points_read_the_environment() -> None:
    """Settings come in at the door and are handed on."""
    found = [
        f"{source.at(node)}: {dotted(node)}"
        for source in PRODUCT
        if not source.name.startswith(tuple(SETTINGS_READERS))
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and dotted(node) in ("os.environ", "os.getenv", "sys.argv")
    ]
    assert found == []


def test_no_import_stands_in_a_function() -> None:
    """A lazy import dodges a cycle or hides a cost; both are cured elsewhere."""
    found = [
        source.at(inner)
        for source in PRODUCT
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert found == []


def test_shim_and_trainer_need_the_standard_library_alone() -> None:
    """They run in the user's environment, where nothing of Steersman's is installed."""
    allowed = sys.stdlib_module_names | {"steersman_trainer"}
    found = []
    for source in PRODUCT:
        if not source.name.startswith(STANDARD_LIBRARY_ONLY):
            continue
        for node in ast.walk(source.tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [
                f"{source.at(node)}: {module}"
                for module in modules
                if module.partition(".")[0] not in allowed
                and not module.startswith(("steersman.ports.run_dir", "steersman.dataplane.shim"))
            ]
    assert found == []


def test_nothing_unpickles() -> None:
    """No format that runs code when it is read."""
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    found = [
        source.at(node)
        for source in PRODUCT
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Import) and banned & {alias.name.partition(".")[0] for alias in node.names})
        or (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in banned)
    ]
    assert found == []


def test_the_product_is_where_it_is_looked_for() -> None:
    """Both packages are read."""
    assert {path.name for path in SRC.iterdir() if path.is_dir() and not path.name.endswith(".egg-info")} == {
        "steersman",
        "steersman_trainer",
    }
