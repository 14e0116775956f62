"""The home's policy: what a new one changes, in words."""

import msgspec

from steersman.app.wire import ChangeView
from steersman.model.policy import Policy


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
