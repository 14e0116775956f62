"""Shapes with a meaning of their own that a service and the gateway need."""

import ipaddress
import re

import msgspec

from steersman.spec.nodes import MapNode, Node, ScalarNode
from steersman.spec.place import Place, show
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.shapes import JsonSchema, Text, scalar_text
from steersman.spec.values import PATH_CHARS_MAX

LOOPBACK = "127.0.0.1"
"""What ``localhost`` stands for as an address to listen on."""

_DOTTED = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

TARGET = Text(
    what="a Python object",
    pattern=f"{_DOTTED}:{_DOTTED}",
    rule="write `module:attribute`, as `service:Model` for the class Model of service.py",
)
MODEL_INPUT_NAME = Text(what="the name of an input of the model", chars_max=128)
HOST_NAME = Text(
    what="the name of a host",
    pattern=rf"{_LABEL}(?:\.{_LABEL})*",
    rule="write it without a scheme, a port or `*`, as api.example.org",
    chars_max=253,
)


class LocalPath(msgspec.Struct, frozen=True, kw_only=True):
    """A file of this machine, as text: the app resolves and checks it."""

    what: str

    def read(self, node: Node, place: Place) -> str:
        text = Text(what=self.what, chars_max=PATH_CHARS_MAX).read(node, place)
        if "://" in text:
            raise place.not_yet(
                node.line, "a file that is fetched from elsewhere is not built yet", "give a path"
            )
        return text

    def schema(self) -> JsonSchema:
        return Text(what=self.what, chars_max=PATH_CHARS_MAX).schema()


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """SkyPilot's ``readiness_probe``: its path alone, which is read as None, or its keys."""

    path: Key[object]
    section: Section

    def read(self, node: Node, place: Place) -> Fields | None:
        if isinstance(node, MapNode):
            return Nested(section=self.section).read(node, place)
        if not (isinstance(node, ScalarNode) and node.is_null):
            self.path.shape.read(node, place)
            place.warn(node.line, f"accepted, and not honoured yet: {self.path.note}")
        return None

    def schema(self) -> JsonSchema:
        return {"anyOf": [self.path.shape.schema(), Nested(section=self.section, nullable=True).schema()]}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An IPv4 or IPv6 address to listen on, or ``localhost``; no name, for a name can stand for several."""

    def read(self, node: Node, place: Place) -> str:
        text = scalar_text(node, place, "an address")
        if text == "localhost":
            return LOOPBACK
        try:
            address = ipaddress.ip_address(re.sub(r"^\[(.*)\]$", r"\1", text))
        except ValueError:
            address = None
        if address is None or "%" in text or address.is_multicast:
            raise place.error(
                node.line,
                f"{show(text)} is not an address to listen on",
                "write an IPv4 or IPv6 address, or localhost; 0.0.0.0 is every address of this machine",
            )
        return str(address)

    def schema(self) -> JsonSchema:
        return {"type": "string", "minLength": 2}


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address that `Address` read."""
    return ipaddress.ip_address(address).is_loopback


def is_every(address: str) -> bool:
    """Whether an address that `Address` read stands for every address of this machine."""
    return ipaddress.ip_address(address).is_unspecified
