"""A policy as a file: what `steer replay --policy` is given, and `policy.yaml` of a home."""

from pathlib import Path

from steersman.model.errors import SpecError
from steersman.model.policy import Policy
from steersman.spec.nodes import BYTES_MAX
from steersman.spec.parse import decode
from steersman.spec.policies import parse_policy

POLICY_FILE = "policy.yaml"


def read_policy(file: Path) -> Policy:
    """The policy that a file declares. Raises SpecError."""
    return parse_policy(_text(file), str(file))


def policy_of(home: Path) -> Policy | None:
    """The policy that somebody wrote into a home; None: nobody did. Raises SpecError."""
    file = home / POLICY_FILE
    return read_policy(file) if file.exists() else None


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(
            f"cannot be read: {words}", source=str(file), hint="check its name and mode"
        ) from error
    return decode(data, str(file))
