"""Whatever comes in, `parse` returns a declaration or raises SpecError, and nothing else."""

from collections.abc import Iterator
from decimal import Decimal

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steersman.model.errors import SpecError
from steersman.model.workload import Workload
from steersman.spec import keys, nodes
from steersman.spec.diff import diff
from steersman.spec.digest import digest
from steersman.spec.parse import Parsed, decode, merge, parse
from steersman.spec.schema import json_schema

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]
SCHEMA = jsonschema.Draft7Validator(json_schema())


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__, scope="module", autouse=True)
def _each_loader(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every property holds for the pure Python reader and for libyaml."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "_LOADER", request.param)
        yield


def attempt(text: str) -> Parsed | SpecError:
    try:
        return parse(text, "f.yaml")
    except SpecError as error:
        return error


def read(text: str) -> Parsed | SpecError:
    result = attempt(text)
    if isinstance(result, SpecError):
        assert result.source == "f.yaml"
        assert result.hint
        assert len(str(result)) < 3_000
    return result


@given(st.text())
def test_any_text(text: str) -> None:
    read(text)


@given(st.text(alphabet="ab:-?[]{},&*!|>'\"%@`#~ \n\t\\0123xuU<.=", max_size=200))
def test_any_text_of_the_characters_that_mean_something_in_yaml(text: str) -> None:
    read(text)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        text = decode(data, "f.yaml")
    except SpecError:
        return
    read(text)


WORDS = sorted({key.name for section in keys.SECTIONS for key in section.keys})
SCALARS = st.sampled_from(
    [
        "x",
        "~",
        "1",
        "0",
        "-1",
        "1.5",
        ".nan",
        "1e99",
        "true",
        "no",
        "off",
        "auto",
        "job",
        "fleet",
        "local",
        "aws",
        "4+",
        "1..2",
        "16GB",
        "10m",
        "A100:8",
        "A100:0.5",
        "a/b",
        "../a",
        "high",
        "error",
        "service",
        "gateway",
        "127.0.0.1",
        "'::'",
        "m:f",
        "0s",
        "'2'",
        '"\\0"',
        "hf_AbCdEfGhIjKlMnOpQrSt",
        "&a x",
        "*a",
        "!t x",
        "docker:x",
        "s3://x",
        "<<",
        "99999999999999999999",
    ]
)
FLOW = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.sampled_from([*WORDS, "A", "<<"]), inner), max_size=5).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=12,
)
DOCUMENT = st.lists(
    st.tuples(st.sampled_from([*WORDS, "run", "run", "model", "kind"]), FLOW),
    max_size=8,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: "".join(f"{key}: {value}\n" for key, value in pairs))


@given(st.lists(DOCUMENT, min_size=1, max_size=3).map("---\n".join))
def test_any_arrangement_of_known_keys(text: str) -> None:
    read(text)


NAME = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
VALUE = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20)
QUOTED = VALUE.map(lambda text: "'" + text.replace("'", "''") + "'")
ENVS = st.dictionaries(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,9}", fullmatch=True).filter(
        lambda name: not name.startswith("STEERSMAN_")
    ),
    QUOTED,
).map(lambda envs: "{" + ", ".join(f"{name}: {value}" for name, value in envs.items()) + "}")
PARTS: dict[str, st.SearchStrategy[str]] = {
    "num_nodes": st.integers(1, 10_000).map(str),
    "resources": st.builds(
        "{{cpus: {}m, memory: {}MB, accelerators: {}:{}}}".format,
        st.integers(1, 64_000),
        st.integers(1, 10**6),
        st.sampled_from(["A100", "H100", "TPU-v5e"]),
        st.integers(1, 1024),
    ),
    "envs": ENVS,
    "setup": QUOTED.filter(lambda text: bool(text.strip("' \xa0\u3000").strip())),
    "priority": st.integers(-1000, 1000).map(str) | st.sampled_from(["low", "normal", "high", "urgent"]),
    "max_duration": st.integers(1, 10**6).map("{}s".format) | st.just("off"),
    "retry": st.sampled_from(["true", "false", "{}", "{on_events: [error], attempts: 2}"]),
    "checkpoint": st.sampled_from(["{}", "{interval: auto}", "{interval: 3s, keep: 9}"]),
    "labels": ENVS,
}
GOOD = st.fixed_dictionaries({"run": st.just("x"), "name": NAME}, optional=PARTS)


def as_text(parts: dict[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in parts.items())


def workload(parts: dict[str, str]) -> Workload:
    return parse(as_text(parts), "f.yaml").workloads[0]


@given(GOOD)
def test_good_declarations_are_accepted_by_parser_and_schema(parts: dict[str, str]) -> None:
    parsed = parse(as_text(parts), "f.yaml")
    assert parsed.workloads[0].name == parts["name"]
    loaded = yaml.safe_load(
        as_text({key: value for key, value in parts.items() if key not in {"name", "max_duration"}})
    )
    assert SCHEMA.is_valid(loaded)
    assert merge([parsed]) == parsed


@given(GOOD, st.sampled_from(WORDS), FLOW)
def test_any_value_at_one_key_of_a_good_declaration(parts: dict[str, str], key: str, value: str) -> None:
    """What is then still accepted is a declaration with a digest; the rest is refused in words."""
    result = read(as_text({**parts, key: value}))
    if isinstance(result, Parsed):
        digests = [digest(each) for each in result.workloads] + [digest(each) for each in result.services]
        assert digests or result.fleet or result.gateway


POLICY = st.fixed_dictionaries(
    {},
    optional={
        "min_replicas": st.integers(-1, 1_001),
        "max_replicas": st.integers(-1, 1_001),
        "initial_replicas": st.integers(-1, 1_001),
        "target_ongoing_requests": st.decimals(0, 10, places=4),
        "upscale_delay_s": st.decimals(0, 86_401, places=4),
    },
)


@given(POLICY)
def test_what_is_accepted_of_a_policy_keeps_its_order_and_bounds(policy: dict[str, object]) -> None:
    """Whatever is left out, the bounds hold; a fraction is never rounded to less than was asked."""
    words = ", ".join(f"{key}: {value}" for key, value in policy.items())
    result = read(f"model: {{onnx: m}}\nservice: {{replica_policy: {{{words}}}}}\n")
    if isinstance(result, SpecError):
        return
    scaling = result.services[0].scaling
    first = scaling.min_replicas if scaling.initial_replicas is None else scaling.initial_replicas
    assert 0 <= scaling.min_replicas <= first <= scaling.max_replicas <= 1_000
    assert scaling.max_replicas >= 1
    asked = policy.get("upscale_delay_s")
    if isinstance(asked, Decimal):
        assert 0 <= scaling.upscale_delay_ms - asked * 1_000 < 1


@given(GOOD, st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_nothing(parts: dict[str, str], random: object) -> None:
    assert hasattr(random, "shuffle")
    items = list(parts.items())
    random.shuffle(items)
    assert digest(workload(dict(items))) == digest(workload(parts))


@given(GOOD, GOOD)
def test_a_difference_is_what_differs(one: dict[str, str], other: dict[str, str]) -> None:
    """No change exactly when the declarations are equal, and the way back is the same list reversed."""
    old, new = workload(one), workload({**other, "name": one["name"]})
    there, back = diff(old, new), diff(new, old)
    assert (there.kind == "unchanged") == (old == new) == (digest(old) == digest(new))
    assert {(c.path, c.before, c.after) for c in there.changes} == {
        (c.path, c.after, c.before) for c in back.changes
    }
    assert there.restarts == back.restarts
