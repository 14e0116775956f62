"""Each peer in a virtual environment of its own, under .venvs, from wheels alone, versions pinned.

Theory: peers disagree about their dependencies, and the project must not depend on any of them. An
environment is made once and kept, as long as its pins are the same; one that cannot be made is a peer that is
left out, with the reason said, and no failure of the benchmark.
"""

import hashlib
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".venvs"
"""Beside the project's own, and in no folder of code: what reads the project's files must not meet theirs."""
INSTALL_SECONDS_MAX = 600
COMMON = ("numpy==2.4.6", "onnxruntime==1.32.0")
PINS: Mapping[str, tuple[str, ...]] = {
    "ray_serve": ("ray[serve]==2.60.0", *COMMON),
    "litserve": ("litserve==0.2.19", *COMMON),
    "bentoml": ("bentoml==1.4.39", *COMMON),
    "mlserver": ("mlserver==1.7.1", *COMMON),
}


class NotInstalledError(Exception):
    """The environment of a peer cannot be made."""


def python(name: str) -> Path:
    """The interpreter of an environment."""
    return FOLDER / name / "bin" / "python"


def install(name: str) -> float:
    """Makes an environment unless it stands; the seconds that took. Raises NotInstalledError."""
    digest = hashlib.sha256("\n".join((sys.version, *PINS[name])).encode()).hexdigest()
    stamp = FOLDER / name / ".pins"
    if stamp.exists() and stamp.read_text() == digest:
        return 0.0
    began = time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    make = [sys.executable, "-m", "venv", "--clear", str(FOLDER / name)]
    pip = [str(python(name)), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *PINS[name]]
    for command in (make, pip):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
            )
        except subprocess.TimeoutExpired as late:
            raise NotInstalledError(f"{name}: not installed in {INSTALL_SECONDS_MAX} s") from late
        if done.returncode != 0:
            raise NotInstalledError(f"{name}: {_last_line(done.stderr)}")
    stamp.write_text(digest)
    return time.monotonic() - began


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "no words")
