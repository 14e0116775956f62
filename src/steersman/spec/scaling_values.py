"""Shapes with a meaning of their own that metrics and schedules need: cron, an offset, a server, a query."""

import re

import msgspec

from steersman.model.cron import parse_cron
from steersman.model.errors import SpecError
from steersman.spec.nodes import Node
from steersman.spec.place import Place, show
from steersman.spec.shapes import JsonSchema, Text, scalar_text

URL_CHARS_MAX = 1_024
QUERY = Text(what="a query in PromQL", chars_max=4_096)
OFFSET_MINUTES_MAX = 14 * 60
"""No place on earth is further from UTC."""
_URL = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?")
_OFFSET = re.compile(r"([+-])([01][0-9]):([0-5][0-9])")


class _Cron(msgspec.Struct, frozen=True, kw_only=True):
    """A cron expression, as its text with single blanks."""

    def read(self, node: Node, place: Place) -> str:
        text = " ".join(scalar_text(node, place, "a cron expression").split())
        try:
            parse_cron(text)
        except SpecError as error:
            raise place.error(node.line, error.message, error.hint) from error
        return text

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": r"^\s*\S+(\s+\S+){4}\s*$"}


class _Offset(msgspec.Struct, frozen=True, kw_only=True):
    """``UTC``, or hours and minutes ahead of it: in minutes."""

    def read(self, node: Node, place: Place) -> int:
        text = scalar_text(node, place, "a time zone")
        match = _OFFSET.fullmatch(text)
        minutes = 0 if match is None else int(match.group(2)) * 60 + int(match.group(3))
        if (match is None and text != "UTC") or minutes > OFFSET_MINUTES_MAX:
            raise place.error(
                node.line,
                f"{show(text)} is not a time zone that is understood here",
                "write UTC, or the hours ahead of it in quotes, as '+02:00'; names such as Europe/Paris, and "
                "with them summer time, are not known",
            )
        return -minutes if match is not None and match.group(1) == "-" else minutes

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"const": "UTC"}, {"type": "string", "pattern": f"^{_OFFSET.pattern}$"}]}


class ServerUrl(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server of HTTP is: scheme, host, and a path at most. No secret may stand in it."""

    def read(self, node: Node, place: Place) -> str:
        text = Text(what="the address of a server", chars_max=URL_CHARS_MAX).read(node, place)
        if _URL.fullmatch(text) is None:
            if "@" in text:
                message, hint = "a password would stand in the journal", "ask a server that needs none"
            else:
                message, hint = f"{show(text)} is not the address of a server", "write http://HOST:PORT"
            raise place.error(node.line, message, hint)
        return text.rstrip("/")

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": f"^{_URL.pattern}$", "maxLength": URL_CHARS_MAX}


CRON, OFFSET = _Cron(), _Offset()
