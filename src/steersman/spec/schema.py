"""JSON Schema of what users write, for editors, made from the table of keys that the parser uses.

It accepts everything that the parser accepts, and names every key that the parser knows, with its standing.
Draft 7, because that is what the YAML support of editors reads.
"""

from steersman.spec.keys import FLEET_SECTION, JOB_SECTION, KIND, SECTIONS
from steersman.spec.sections import Key, Section
from steersman.spec.shapes import JsonSchema

DIALECT = "http://json-schema.org/draft-07/schema#"


def json_schema() -> JsonSchema:
    """The schema of one document."""
    is_fleet = {"required": [KIND.name], "properties": {KIND.name: {"const": FLEET_SECTION.name}}}
    return {
        "$schema": DIALECT,
        "title": "Steersman declaration",
        "type": "object",
        "if": is_fleet,
        "then": {"$ref": f"#/definitions/{FLEET_SECTION.name}"},
        "else": {"$ref": f"#/definitions/{JOB_SECTION.name}"},
        "definitions": {section.name: _section(section) for section in SECTIONS},
    }


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
