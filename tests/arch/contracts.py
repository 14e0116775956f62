"""The import contracts of pyproject.toml: their names, and which of them a source tree breaks."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS_MAX = 60

_VERDICT = re.compile(r"^(?P<name>\S.*) (?P<verdict>KEPT|BROKEN)\b", re.MULTILINE)


_SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = _SETTINGS["tool"]["importlinter"]["contracts"]
CONTRACT_IDS: dict[str, str] = {one["name"]: one["id"] for one in CONTRACTS}
"""Identifier of each contract by its name."""


def broken_contracts(source: Path) -> frozenset[str]:
    """Identifiers of the contracts that the packages under `source` break."""
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    run = subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    verdicts = {found["name"].strip(): found["verdict"] for found in _VERDICT.finditer(run.stdout)}
    assert set(verdicts) == set(CONTRACT_IDS), run.stdout + run.stderr
    broken = frozenset(CONTRACT_IDS[name] for name, verdict in verdicts.items() if verdict == "BROKEN")
    assert (run.returncode == 0) == (not broken), run.stdout
    return broken
