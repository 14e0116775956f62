"""Which build this is, and which versions of what it leans on."""

import hashlib
import platform
from pathlib import Path

import msgspec

import steersman
from steersman.journal.connect import connect

BUILD_PACKAGES = ("model", "state", "decide")
BUILD_DIGEST_CHARS = 12


def build() -> str:
    """The version, and a digest of the sources that make the state: an image of other sources is not used."""
    root = Path(steersman.__file__).parent
    digest = hashlib.sha256()
    for package in BUILD_PACKAGES:
        for path in sorted((root / package).glob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return f"{steersman.__version__}+{digest.hexdigest()[:BUILD_DIGEST_CHARS]}"


def libraries() -> tuple[tuple[str, str], ...]:
    """What a replay must have in the same version to give the same bytes."""
    return (
        ("msgspec", msgspec.__version__),
        ("python", platform.python_version()),
        ("sqlite", sqlite_version()),
    )


def sqlite_version() -> str:
    """The version of the engine that keeps the journal, as it says itself."""
    connection = connect(Path(":memory:"), None, "create")
    try:
        return str(next(connection.execute("SELECT sqlite_version()"))[0])
    finally:
        connection.close()
