"""A replica runs in the user's interpreter: Python 3.9's grammar, the standard library, and three ports."""

import ast
import sys
from pathlib import Path

from steersman.dataplane import replica
from steersman.ports import peers, replica_wire, run_dir

FOLDER = Path(replica.__file__).parent
PORTS = {"steersman.ports.run_dir", "steersman.ports.peers", "steersman.ports.replica_wire"}
SOURCES = [
    *sorted(FOLDER.glob("*.py")),
    *(Path(str(port.__file__)) for port in (peers, run_dir, replica_wire)),
]
NUMERIC = {"numpy", "onnxruntime"}


def _imported(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = node.module in ("steersman.ports", "steersman.dataplane.replica")
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if inner else {node.module or ""}
    return found


def test_it_imports_the_standard_library_itself_and_its_contract_only() -> None:
    for source in SOURCES:
        for name in _imported(ast.parse(source.read_text())):
            top = name.split(".")[0]
            allowed = (
                top in sys.stdlib_module_names
                or name in PORTS
                or name.startswith("steersman.dataplane.replica.")
                or (top in NUMERIC and source.name == "onnx_model.py")
            )
            assert allowed, f"{source.name}: {name}"


def test_it_is_written_in_the_grammar_of_python_3_9() -> None:
    for source in SOURCES:
        tree = ast.parse(source.read_text(), feature_version=(3, 9))
        if any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree)):
            # Without it `X | None` in an annotation is evaluated, and fails before Python 3.10.
            futures = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
            assert any(node.module == "__future__" for node in futures), source.name


def test_the_command_names_the_entry_point() -> None:
    python, path = replica.replica_argv("/usr/bin/python3")
    assert python == "/usr/bin/python3"
    assert Path(path).read_text().startswith('"""Entry point')
