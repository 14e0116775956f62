"""The pages say what is so: links lead somewhere, examples parse, verbs exist, tables are the code's."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs import generate
from tests.arch.sources import PAGES, ROOT

from steersman.app.cli import root
from steersman.model.errors import SpecError
from steersman.spec.keys import SECTIONS
from steersman.spec.parse import parse
from steersman.state.lifecycle import PHASE_MOVES, RUN_MOVES

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"!?\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"`(?P<code>[^`\n]+)`")
_HEADING = re.compile(r"^#+ +(?P<words>.+)$", re.MULTILINE)
_VERB = re.compile(
    r"(?:^|[\s;&|(/])steer(?: +--?[a-z-]+(?:[= ]\S+)?)*? +"
    r"(?P<verb>[a-z][a-z-]*)(?: +(?P<second>[a-z][a-z-]*))?"
)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _prose(text: str) -> str:
    return _FENCE.sub("", text)


def _slug(words: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    plain = re.sub(r"[^\w\- ]", "", words.lower())
    return plain.strip().replace(" ", "-")


def _broken_links(page: Path, text: str) -> Iterator[str]:
    for match in _LINK.finditer(_prose(text)):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        if target and not file.exists():
            yield f"{_name(page)}: {match['target']}: there is no such file"
        elif anchor and file.suffix == ".md":
            content = text if file == page else file.read_text(encoding="utf-8")
            if anchor not in {_slug(heading["words"]) for heading in _HEADING.finditer(content)}:
                yield f"{_name(page)}: {match['target']}: there is no such heading"


def _examples(text: str) -> Iterator[str]:
    """Fenced blocks that are declarations."""
    for match in _FENCE.finditer(text):
        body = textwrap.dedent(match["body"])
        first = next(
            (line for line in body.splitlines() if line.strip() and not line.startswith(("#", "---"))), ""
        )
        if match["language"] in ("yaml", "yml") or first.startswith(("kind:", "name:")):
            yield body


def _verbs(text: str) -> Iterator[tuple[str, str]]:
    """(verb, word after it) of every command line of `steer` that stands in code."""
    indented = [line for line in _prose(text).splitlines() if line.startswith("    ")]
    blocks = [line for match in _FENCE.finditer(text) for line in match["body"].splitlines()]
    spans = [match["code"] for match in _CODE.finditer(_prose(text))]
    for code in (*indented, *blocks, *spans):
        for match in _VERB.finditer(code.partition(" #")[0]):
            yield match["verb"], match["second"] or ""


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link has its file, and every anchor its heading."""
    assert list(_broken_links(page, page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_examples_parse(page: Path) -> None:
    """Every declaration shown is one that Steersman takes."""
    for number, example in enumerate(_examples(page.read_text(encoding="utf-8")), 1):
        parse(example, f"{_name(page)} example {number}")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_verbs_exist(page: Path) -> None:
    """Every `steer verb` shown is a verb, and what follows a group of verbs is one of them."""
    unknown = []
    for verb, second in _verbs(page.read_text(encoding="utf-8")):
        if verb not in root.VERBS:
            unknown.append(f"steer {verb}")
            continue
        inner = getattr(root.load_verb(verb), "commands", {})
        if inner and second and second not in inner:
            unknown.append(f"steer {verb} {second}")
    assert unknown == []


@pytest.mark.parametrize("page", sorted(generate.PAGES), ids=_name)
def test_made_pages_are_what_the_code_says(page: Path) -> None:
    """Keys, verbs and life-cycles are written once, in the code; `make docs` writes the pages."""
    assert page.read_text(encoding="utf-8") == generate.PAGES[page]()


def test_diagrams_hold_every_move() -> None:
    """Nothing is left out of a diagram, and nothing is in it that is not in its table."""
    for name, table in (("workload-phases", PHASE_MOVES), ("run-states", RUN_MOVES)):
        drawn = {line.strip() for line in generate.diagrams()[name].splitlines() if ": " in line}
        assert drawn == {
            f"{a}: {cause}".replace(a, f"{a} --> {b}", 1) for (a, cause), bs in table.items() for b in bs
        }


def test_every_honoured_key_is_on_its_page() -> None:
    """A key that is not written down is a key that nobody finds."""
    page = generate.spec_page()
    for section in SECTIONS:
        for key in section.keys:
            assert f"| `{key.name}`" in page


def _missing_proofs(page: Path, text: str) -> Iterator[str]:
    """Links that are called after a test that their file does not hold."""
    for match in re.finditer(r"\[(?P<test>test_\w+)\]\((?P<file>[^)\s]+\.py)\)", text):
        file = (page.parent / match["file"]).resolve()
        if not file.exists() or f"def {match['test']}(" not in file.read_text(encoding="utf-8"):
            yield f"{_name(page)}: {match['test']} is not in {match['file']}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_proofs_exist(page: Path) -> None:
    """A page that names a test as its proof names one that is there."""
    assert list(_missing_proofs(page, page.read_text(encoding="utf-8"))) == []


PAGE = ROOT / "docs" / "planted.md"


@pytest.mark.parametrize("link", ["[test_nothing](../tests/conftest.py)", "[test_x](../tests/nowhere.py)"])
def test_the_check_of_proofs_bites(link: str) -> None:
    """A proof that is not there is seen."""
    assert len(list(_missing_proofs(PAGE, link))) == 1


@pytest.mark.parametrize("text", ["[a](nowhere.md)", "[a](#nowhere)", "[a](../README.md#nowhere)"])
def test_the_check_of_links_bites(text: str) -> None:
    """A link to nothing is seen."""
    assert len(list(_broken_links(PAGE, f"# Here\n\n{text}\n"))) == 1


@pytest.mark.parametrize(
    "text", ["[a](#here)", "[a](../README.md)", "[a](https://example.org/x)", "```\n[a](no.md)\n```"]
)
def test_the_check_of_links_is_not_blind(text: str) -> None:
    """A link that leads somewhere, and what is no link, are left alone."""
    assert list(_broken_links(PAGE, f"# Here\n\n{text}\n")) == []


def test_the_check_of_examples_bites() -> None:
    """A key that does not exist is seen, whatever the fence says."""
    (example,) = _examples("```\nname: a\ncommand: x\n```\n")

    with pytest.raises(SpecError):
        parse(example, "planted")


@pytest.mark.parametrize(
    ("text", "verbs"),
    [
        ("run `steer frobnicate x` now", [("frobnicate", "x")]),
        ("```\n$ steer up a.yaml  # steer nothing\n```", [("up", "a")]),
        ("    steer --home /tmp/h secret set TOKEN", [("secret", "set")]),
        ("import `steersman_trainer as steer`", []),
        ("steer clear of prose", []),
        ("`steer.start()`", []),
    ],
)
def test_the_check_of_verbs_bites(text: str, verbs: list[tuple[str, str]]) -> None:
    """Verbs are read out of code, and out of nothing else."""
    assert list(_verbs(f"{text}\n")) == verbs
