"""The home's policy: what is asked and answered about it, and what a new one changes, in words."""

from typing import Annotated

import msgspec

from steersman.app.wire import ChangeView
from steersman.model.policy import Policy

POLICY_CHARACTERS_MAX = 1_048_576
"""The longest text of a policy."""


class PolicyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy to obey from now on: the text of its file, and what the file is called in messages."""

    text: Annotated[str, msgspec.Meta(max_length=POLICY_CHARACTERS_MAX)]
    source: Annotated[str, msgspec.Meta(max_length=4_096)]


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """The policy that is obeyed, and what a request changed in it."""

    policy: Policy
    position: int
    changes: tuple[ChangeView, ...] = ()


def shown(value: object) -> str:
    """A value as it is written in a policy's file."""
    return msgspec.json.encode(value).decode()


def changes(before: Policy, after: Policy) -> tuple[ChangeView, ...]:
    """The keys that differ, in the order of the policy."""
    found = []
    for name in Policy.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            found.append(ChangeView(path=name, before=shown(old), after=shown(new)))
    return tuple(found)
