"""The part of Steersman that runs on a cluster, in a folder of its own, named by its content.

A bridge, a fence and hosts run this copy: it does not change while Steersman is upgraded, and on the path of
an interpreter that has other packages, other versions of Steersman among them, it brings nothing but itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from steersman.hosting import files

CODE = "code"
PACKAGES = ("steersman", "steersman_trainer")
SHIPPED = (
    "steersman/__init__.py",
    "steersman/model/__init__.py",
    "steersman/model/errors.py",
    "steersman/ports/__init__.py",
    "steersman/ports/run_dir.py",
    "steersman/ports/peers.py",
    "steersman/ports/replica_wire.py",
    "steersman/hosting/__init__.py",
    "steersman/hosting/claim.py",
    "steersman/hosting/files.py",
    "steersman/hosting/folders.py",
    "steersman/dataplane/__init__.py",
    "steersman/dataplane/shim/*.py",
    "steersman/dataplane/replica/*.py",
    "steersman/dataplane/cluster/*.py",
    "steersman_trainer/*",
)


def code_folder(home: Path, source: Path) -> Path:
    """A folder of the home that holds `PACKAGES`. `source` has them among others. Raises OSError."""
    wanted = [
        path
        for pattern in SHIPPED
        for path in sorted(source.glob(pattern))
        if path.is_file() and path.suffix == ".py"
    ]
    digest = hashlib.sha256()
    for path in wanted:
        digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes())
    folder = home / CODE / digest.hexdigest()[:16]
    for path in wanted:
        target = folder / path.relative_to(source)
        if not target.exists():
            target.parent.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
            files.write_bytes(target, path.read_bytes())
    return folder
