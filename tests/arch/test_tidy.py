"""Habits of the house that no linter holds: sizes, suppressions, words, docstrings, broad handlers.

Each limit is a ratchet: it stands where the code is, and is never raised for one function's sake.
"""

import ast
import re
from collections.abc import Iterator

import pytest
from tests.arch.sources import PAGES, PRODUCT, ROOT, SOURCES, SRC, TEXT_SUFFIXES, Source, comments, text_files

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500
PARAMETERS_MAX = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef

_SUPPRESSION = re.compile(
    r"#\s*(?:ruff:\s*)?(?:noqa(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?"
    r"|type:\s*ignore(?:\[[\w-]+(?:,\s*[\w-]+)*\])?|pragma:\s*no (?:cover|branch))"
)
_REASON_CHARACTERS_MIN = 6
_UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
_MACHINE = re.compile(r"(?<![\w.*-])/(?:ro" + r"ot|wo" + r"rk|home/[a-z]+)(?:/|\b)")
_BANNED = {
    "white" + "list": "say what is allowed",
    "black" + "list": "say what is refused",
    "san" + "ity": "say what is checked",
    "seam" + "less": "say what happens",
    "lever" + "age": "say use",
    "util" + "ize": "say use",
    "util" + "ise": "say use",
    "rob" + "ust": "say against what",
    "blaz" + "ing": "give the figure",
    "effort" + "less": "say how many steps",
    "world-" + "class": "give the figure",
    "cutting-" + "edge": "give the figure",
    "obvious" + "ly": "leave it out",
    "trivial" + "ly": "leave it out",
}


def _functions(source: Source) -> Iterator[Function]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _parameters(source: Source, node: Function) -> int:
    """How many; a builder outside the product may take any number by name: a call names the few it means."""
    named = [*node.args.posonlyargs, *node.args.args]
    if source in PRODUCT:
        named += node.args.kwonlyargs
    return len([one for one in named if one.arg not in ("self", "cls")])


def test_functions_are_short() -> None:
    """No function is longer than a page."""
    long = [
        f"{source.at(node)} {node.name}: {_length(node)} lines"
        for source in SOURCES
        for node in _functions(source)
        if _length(node) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_files_are_short() -> None:
    """No file is longer than can be kept in mind."""
    lengths = {source.name: source.text.count("\n") for source in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_functions_take_few_parameters() -> None:
    """Whoever needs more than six parameters needs a record."""
    many = [
        f"{source.at(node)} {node.name}: {_parameters(source, node)} parameters"
        for source in SOURCES
        for node in _functions(source)
        if _parameters(source, node) > PARAMETERS_MAX
    ]
    assert many == []


def _reasonless(source: Source) -> Iterator[str]:
    lines = source.text.splitlines()
    for number, comment in comments(source):
        found = list(_SUPPRESSION.finditer(comment))
        if not found:
            continue
        said = _SUPPRESSION.sub("", comment).strip(" #-():")
        if comment.lstrip("# ").startswith("ruff:"):  # the reason for a whole file stands above it
            said += lines[number - 2].strip(" #:")
        if len(said) < _REASON_CHARACTERS_MIN:
            yield f"{source.name}:{number}: {comment}"


def test_a_suppression_gives_its_reason() -> None:
    """Every noqa, type: ignore and pragma says on its line why it is right."""
    assert [line for source in SOURCES for line in _reasonless(source)] == []


@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        ("x = 1  # noqa: S105 - the name of a file, no secret", True),
        ("x = 1  # type: ignore[arg-type]  # a NewType over str", True),
        ("# a reason above\n# ruff: noqa: PTH100", True),
        ("x = 1  # noqa: S105", False),
        ("x = 1  # noqa", False),
        ("x = 1  # type: ignore", False),
        ("x = 1  # pragma: no cover", False),
        ("x = 1\n# ruff: noqa: PTH100", False),
    ],
)
def test_the_check_of_suppressions_bites(line: str, accepted: bool) -> None:
    """What gives a reason passes, and what gives none does not."""
    source = Source(ROOT / "planted.py", line, ast.parse(line))

    assert (list(_reasonless(source)) == []) is accepted


def test_nothing_is_left_unfinished() -> None:
    """What is not done is an issue, not a mark in the code."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _UNFINISHED.search(line)
    ]
    assert found == []


def test_nothing_names_a_path_of_somebody_s_machine() -> None:
    """The project runs wherever it is cloned."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _MACHINE.search(line)
    ]
    assert found == []


def test_words_say_something() -> None:
    """Words that claim without telling, and words that hurt, are replaced by what is meant."""
    pattern = re.compile("|".join(rf"\b{word}\w*" for word in _BANNED), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}: {_advice(match.group())}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert found == []


def _advice(word: str) -> str:
    return next(advice for banned, advice in _BANNED.items() if word.lower().startswith(banned))


def test_the_pages_are_found() -> None:
    """A test that reads nothing would pass."""
    assert {"README.md", "CONTRIBUTING.md"} <= {path.name for path in PAGES}
    assert ".md" in TEXT_SUFFIXES
    assert len(PRODUCT) > 50


def test_every_package_says_what_it_is_and_what_is_never_in_it() -> None:
    """The docstring of a package is its border."""
    silent = []
    for source in PRODUCT:
        if source.path.name != "__init__.py" or source.path.parent.parent == SRC:
            continue
        words = " ".join((ast.get_docstring(source.tree) or "").split())
        if "Never in here:" not in words:
            silent.append(source.name)
    assert silent == []


def test_every_package_holds_something() -> None:
    """No folder waits for a future: a package comes with its first module or its first name."""
    empty = []
    for source in PRODUCT:
        if source.path.name == "__init__.py" and source.path.parent.parent != SRC:
            others = [
                path
                for path in source.path.parent.iterdir()
                if path.name not in ("__init__.py", "__pycache__")
            ]
            if not others and len(source.tree.body) <= 1:
                empty.append(source.name)
    assert empty == []


def test_every_module_opens_with_its_theory() -> None:
    """Who opens a file is told first how it works."""
    assert [source.name for source in SOURCES if not ast.get_docstring(source.tree)] == []


def test_ports_are_contracts_in_words() -> None:
    """Every method of a port is documented, by itself or by name in the contract of its protocol."""
    silent = []
    for source in PRODUCT:
        if source.path.parent != SRC / "steersman" / "ports":
            continue
        for node in source.tree.body:
            if isinstance(node, Function) and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{source.name} {node.name}")
            if isinstance(node, ast.ClassDef) and "Protocol" in {ast.unparse(base) for base in node.bases}:
                contract = ast.get_docstring(node) or ""
                silent += [
                    f"{source.name} {node.name}.{method.name}"
                    for method in node.body
                    if isinstance(method, Function)
                    and not ast.get_docstring(method)
                    and f"`{method.name}`" not in contract
                ]
    assert silent == []


def test_only_the_supervisor_catches_everything() -> None:
    """A broad handler hides bugs; there is one place that may have it."""
    broad = [
        source.at(node)
        for source in PRODUCT
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or re.search(r"\b(?:Base)?Exception\b", ast.unparse(node.type)))
    ]
    assert {line.partition(":")[0] for line in broad} == {"src/steersman/engine/supervise.py"}
    assert len(broad) == 1
