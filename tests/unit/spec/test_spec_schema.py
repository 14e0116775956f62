"""The schema for editors is valid, names every key, and accepts what the parser accepts."""

import ast
import json
import re
from pathlib import Path

import jsonschema
import pytest

from steersman.model.errors import SpecError
from steersman.spec import keys
from steersman.spec.nodes import ListNode, MapNode, Node, ScalarNode, compose
from steersman.spec.parse import parse
from steersman.spec.schema import json_schema


def as_json(node: Node) -> object:
    """A node as an editor sees it: types by the core schema of YAML 1.2."""
    match node:
        case ListNode():
            return [as_json(item) for item in node.items]
        case MapNode():
            return {entry.key.text: as_json(entry.value) for entry in node.entries}
        case ScalarNode():
            return scalar(node)


def scalar(node: ScalarNode) -> object:
    text = node.text
    if not node.plain:
        return text
    if node.is_null:
        return None
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    return text


def test_the_schema_is_a_valid_schema_and_names_every_key() -> None:
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    for section in keys.SECTIONS:
        definition = schema["definitions"][section.name]
        assert list(definition["properties"]) == [key.name for key in section.keys]
        assert all(prop["description"] for prop in definition["properties"].values())
    assert schema["definitions"]["job"]["required"] == ["run"]
    assert schema["definitions"]["node"]["required"] == ["name", "cpus", "memory"]
    assert schema["definitions"]["service"]["required"] == ["model"]


def accepted_examples() -> list[str]:
    """Every string in the tests of this folder, alone and as the value of several keys."""
    texts: list[str] = []
    for path in sorted(Path(__file__).parent.glob("test_spec_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    values = (
        "resources:",
        "retry:",
        "checkpoint:",
        "secrets:",
        "priority:",
        "max_duration:",
        "name:",
        "labels:",
    )
    amounts = ("resources:\n  cpus:", "resources:\n  memory:", "resources:\n  accelerators:")
    served = "model: {onnx: m}\n"
    heads = (
        "",
        "run: x\n",
        "kind: fleet\n",
        "kind: gateway\n",
        served,
        f"{served}service:\n  ",
        *(f"run: x\n{key} " for key in (*values, *amounts)),
    )
    return [head + text for text in dict.fromkeys(texts) for head in heads]


def test_what_the_parser_accepts_the_schema_accepts() -> None:
    validator = jsonschema.Draft7Validator(json_schema())
    count = 0
    for text in accepted_examples():
        try:
            parse(text, "f.yaml")
        except SpecError:
            continue
        count += 1
        for document in compose(text, "f.yaml"):
            problems = [
                f"{error.json_path}: {error.message}" for error in validator.iter_errors(as_json(document))
            ]
            assert not problems, (text, problems)
    assert count > 200


@pytest.mark.parametrize(
    "text",
    [
        "name: a\n",
        "run: x\nrnu: y\n",
        "run: x\nresources: {cpus: 4 apples}\n",
        "run: x\nresources: {memory: 4 furlongs}\n",
        "run: x\nresources: {cpus: 0}\n",
        "run: x\nresources: {infra: aws}\n",
        "kind: service\nrun: x\n",
        "service: {replicas: 1}\nrun: x\n",
        "kind: service\n",
        "model: {onnx: m, path: x}\n",
        "model: {callable: 'no target'}\n",
        "model: {onnx: m}\nservice: {replicas: 0}\n",
        "model: {onnx: m}\nservice: {replica_policy: {target_qps_per_replica: 3}}\n",
        "model: {onnx: m}\nnum_nodes: 2\n",
        "model: {onnx: m}\nservice: {max_batch_size: 65536}\n",
        "kind: gateway\nport: 70000\n",
        "kind: gateway\nkeys: never\n",
        "kind: gateway\ntls: {certificate: c}\n",
        "kind: gateway\nrun: x\n",
        "name: A.b\nrun: x\n",
        "run: x\nnum_nodes: 0\n",
        "run: x\nnum_nodes: 1.5\n",
        "run: x\nmax_duration: soon\n",
        "run: x\nenvs: {A: }\n",
        "run: x\nenvs: {A-B: c}\n",
        "run: x\nsecrets: {A: b c}\n",
        "run: x\nimage_id: x\n",
        "run: x\nbudget: 5\n",
        "run: x\nretry: {on_events: [errors]}\n",
        "kind: fleet\nnodes: [{name: a}]\n",
        "run: x\npriority: 1001\n",
        "run: x\ninputs: {A: {workload: w}}\n",
        "run: x\ncheckpoint: {interval: often}\n",
    ],
)
def test_the_schema_refuses_the_plain_mistakes_too(text: str) -> None:
    (document,) = compose(text, "f.yaml")
    assert not jsonschema.Draft7Validator(json_schema()).is_valid(as_json(document))


def test_every_reference_leads_somewhere() -> None:
    """A section that is nested and not listed would leave editors without its keys."""
    schema = json_schema()
    named = set(re.findall(r'"#/definitions/([^"]*)"', json.dumps(schema)))
    assert named <= set(schema["definitions"])
