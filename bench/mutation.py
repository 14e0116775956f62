"""How many small faults in the core do its tests notice? `python -m bench.mutation --sample 60`

Theory: a mutant is the core with one small fault: a comparison turned, a condition negated, a constant off,
`and` for `or`, a result lost, a call left out. A seeded sample of all such faults in decide/
and state/ is tried, each in its own copy of src in a temporary folder, by the fast tests of the core. A
mutant that they do not notice is either equal to the original or shows what is not tested: all are printed.
Own and small, for the mutation tools that are well kept rewrite the tree they test or want to own the run.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("decide", "state")
TESTS = (
    "tests/scenarios",
    "tests/unit/state",
    "tests/unit/decide",
    "tests/properties/test_laws.py",
    "tests/properties/test_determinism.py",
)
SECONDS_MAX = 120
"""A mutant that takes longer hangs, and counts as noticed."""

_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def _faults(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every fault that one node can have: what it is called, and the node instead."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        turned = _TURNED[type(node.ops[0])]()
        yield "turn", ast.Compare(left=node.left, ops=[turned], comparators=node.comparators)
    elif isinstance(node, ast.If | ast.IfExp):
        negated = ast.UnaryOp(op=ast.Not(), operand=node.test)
        if isinstance(node, ast.If):
            yield "negate", ast.If(test=negated, body=node.body, orelse=node.orelse)
        else:
            yield "negate", ast.IfExp(test=negated, body=node.body, orelse=node.orelse)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "swap", ast.BoolOp(op=other, values=node.values)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "more", ast.Constant(value=node.value + 1)
        yield "less", ast.Constant(value=node.value - 1)
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "lose", ast.Return(value=ast.Constant(value=None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "skip", ast.Pass()


class _Swap(ast.NodeTransformer):
    """Puts one node in the place of the wanted one, counted in walking order."""

    def __init__(self, wanted: int, kind: str) -> None:
        self.wanted, self.kind, self.at, self.line = wanted, kind, -1, 0

    def visit(self, node: ast.AST) -> ast.AST:
        self.at += 1
        if self.at == self.wanted:
            self.line = getattr(node, "lineno", 0)
            return ast.copy_location(dict(_faults(node))[self.kind], node)
        return self.generic_visit(node)


def _places(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(number in walking order, kind) of every fault; assertions guard and are left alone."""

    def walk(node: ast.AST, number: int) -> Iterator[tuple[int, str, int]]:
        for kind, _ in _faults(node):
            yield number, kind, number
        number += 1
        for child in ast.iter_child_nodes(node):
            inner = sum(1 for _ in ast.walk(child))
            if not isinstance(child, ast.Assert):
                yield from walk(child, number)
            number += inner

    for number, kind, _ in walk(tree, 0):
        yield number, kind


class Mutant:
    """One fault in one file."""

    def __init__(self, path: Path, number: int, kind: str) -> None:
        self.path, self.number, self.kind = path, number, kind

    def source(self) -> tuple[str, int]:
        """The text with the fault, and its line."""
        swap = _Swap(self.number, self.kind)
        tree = ast.fix_missing_locations(swap.visit(ast.parse(self.path.read_text())))
        return ast.unparse(tree), swap.line


def mutants(src: Path) -> list[Mutant]:
    """All faults of the core under `src`, in a fixed order."""
    found = []
    for package in PACKAGES:
        for path in sorted((src / "steersman" / package).glob("*.py")):
            found += [Mutant(path, number, kind) for number, kind in _places(ast.parse(path.read_text()))]
    return found


def _noticed(mutant: Mutant, folder: Path) -> tuple[bool, int]:
    original = mutant.path.read_text()
    text, line = mutant.source()
    mutant.path.write_text(text)
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no"]
    command += ["-o", f"pythonpath={folder / 'src'}", "-n", "0", *TESTS]
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=SECONDS_MAX)
        noticed = done.returncode != 0
    except subprocess.TimeoutExpired:
        noticed = True
    mutant.path.write_text(original)
    return noticed, line


def measure(sample: int = 60, seed: int = 1) -> dict[str, float | list[str]]:
    """Tries a seeded sample; `score` is the share noticed, `survived` says where the others are."""
    survived = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        every = mutants(folder / "src")
        chosen = random.Random(seed).sample(every, min(sample, len(every)))
        for mutant in chosen:
            noticed, line = _noticed(mutant, folder)
            where = f"{mutant.path.relative_to(folder / 'src')}:{line} {mutant.kind}"
            print("killed  " if noticed else "SURVIVED", where, flush=True)
            if not noticed:
                survived.append(where)
    score = 1 - len(survived) / len(chosen)
    return {"mutants": float(len(every)), "tried": float(len(chosen)), "score": score, "survived": survived}


def main() -> None:
    """Print the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.sample, arguments.seed), indent=1))


if __name__ == "__main__":
    main()
