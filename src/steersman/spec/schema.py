"""JSON Schema of what users write, for editors, made from the table of keys that the parser uses.

It accepts everything that the parser accepts, and names every key that the parser knows, with its standing.
Draft 7, because that is what the YAML support of editors reads.
"""

from steersman.spec.keys import SECTIONS
from steersman.spec.keys_common import KIND
from steersman.spec.keys_fleet import FLEET_SECTION
from steersman.spec.keys_gateway import GATEWAY_SECTION
from steersman.spec.keys_job import JOB_SECTION
from steersman.spec.keys_queue import QUEUE_SECTION
from steersman.spec.keys_service import SERVICE_SECTION
from steersman.spec.parse import SERVICE_MARKS
from steersman.spec.sections import Key, Section
from steersman.spec.shapes import JsonSchema

DIALECT = "http://json-schema.org/draft-07/schema#"


def json_schema() -> JsonSchema:
    """The schema of one document."""
    return {
        "$schema": DIALECT,
        "title": "Steersman declaration",
        "type": "object",
        **_choose(
            (_is(FLEET_SECTION), FLEET_SECTION),
            (_is(GATEWAY_SECTION), GATEWAY_SECTION),
            (_is(QUEUE_SECTION), QUEUE_SECTION),
            (_is_service(), SERVICE_SECTION),
            otherwise=JOB_SECTION,
        ),
        "definitions": {section.name: _section(section) for section in SECTIONS},
    }


def _choose(*choices: tuple[JsonSchema, Section], otherwise: Section) -> JsonSchema:
    """The section of the first condition that holds."""
    chosen = _reference(otherwise)
    for condition, section in reversed(choices):
        chosen = {"if": condition, "then": _reference(section), "else": chosen}
    return chosen


def _reference(section: Section) -> JsonSchema:
    return {"$ref": f"#/definitions/{section.name}"}


def _is(section: Section) -> JsonSchema:
    return {"required": [KIND.name], "properties": {KIND.name: {"const": section.name}}}


def _is_service() -> JsonSchema:
    """It says so, or it says nothing and has one of the keys that only a service has."""
    marked: JsonSchema = {"anyOf": [{"required": [mark]} for mark in sorted(SERVICE_MARKS)]}
    return {"anyOf": [_is(SERVICE_SECTION), {"not": {"required": [KIND.name]}, **marked}]}


def _section(section: Section) -> JsonSchema:
    schema: JsonSchema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: _key(key, optional=section.optional) for key in section.keys},
    }
    required = [key.name for key in section.keys if key.required]
    if required:
        schema["required"] = required
    return schema


def _key(key: Key[object], *, optional: bool) -> JsonSchema:
    if key.standing == "honoured":
        return {**key.shape.schema(), "description": key.note}
    if key.standing == "accepted":
        accepted = {"anyOf": [key.shape.schema(), {"type": "null"}]}
        return {**accepted, "description": f"Accepted, and not honoured yet: {key.note}"}
    values: JsonSchema = {} if optional else {"enum": [None, {}, []]}
    return {**values, "description": f"Not built yet: {key.note}"}
