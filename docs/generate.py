"""The pages that are made from the code: the keys of a declaration, the verbs of `steer`, the life-cycles.

    python docs/generate.py            write them
    python docs/generate.py --check    exit with 1 when one differs from what is written; changes nothing

Theory: what the code knows in a table is not written a second time by hand. Keys come from
`steersman.spec.keys`, verbs and options from the parsers of `steersman.app.cli`, the diagrams from the tables
of `steersman.state.lifecycle`; a diagram stands in a hand-written page between two marks. The tests of
tests/arch/test_docs.py hold page and code together.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from steersman.app.cli import root
from steersman.app.policies import shown
from steersman.model.policy import Policy
from steersman.model.snapshot import FINAL_PHASES, Phase, RunState
from steersman.spec.keys import SECTIONS
from steersman.spec.policies import NOTES
from steersman.spec.sections import Key, Section, Standing
from steersman.state.lifecycle import PHASE_MOVES, RUN_MOVES

DOCS = Path(__file__).resolve().parent
ARCHITECTURE = DOCS / "architecture.md"
MADE = "<!-- made by docs/generate.py: change the code, then run `make docs` -->"

_STANDINGS: Mapping[Standing, str] = {
    "honoured": "Keys that have their effect",
    "accepted": "Keys that are checked and have no effect yet: a warning says so",
    "not-yet": "Keys that are refused, with the code `not-yet`: without them a promise would be broken",
}
_OF_EVERY_PARSER = frozenset({"help", "install_completion", "show_completion"})
_ORIGINS = {
    "skypilot": "SkyPilot",
    "dstack": "dstack",
    "ray-serve": "Ray Serve",
    "steersman": "Steersman",
}


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def _keys(section: Section, standing: Standing) -> list[Key[object]]:
    return [key for key in section.keys if key.standing == standing]


def _section(section: Section) -> Iterator[str]:
    yield f"## Keys of {section.title}"
    yield ""
    for standing, words in _STANDINGS.items():
        keys = _keys(section, standing)
        if not keys:
            continue
        yield f"{words}:"
        yield ""
        rows = [
            (
                f"`{key.name}`{' (required)' if key.required else ''}",
                key.note,
                _ORIGINS[key.origin],
            )
            for key in keys
        ]
        yield from _table(("key", "meaning", "word of"), rows)
        yield ""


def spec_page() -> str:
    """docs/reference/spec.md."""
    lines = [
        "# The keys of a declaration",
        "",
        MADE,
        "",
        "A file holds one or more YAML documents. `kind` says what a document declares: `job`, `service`,",
        "`gateway`, `queue` or `fleet`. Without it, a document with a `model` or a `service` section is a",
        "service, and any other a job. A key that is not on this page is refused, with its line and the",
        "nearest known key.",
        "`steer schema` prints the same table as a JSON Schema for editors.",
        "",
    ]
    for section in SECTIONS:
        lines += _section(section)
    return "\n".join(lines)


def policy_page() -> str:
    """docs/reference/policy.md."""
    default = Policy()
    lines = [
        "# The keys of a policy",
        "",
        MADE,
        "",
        "What decisions obey. `steer policy show` prints the policy of a home, `steer policy set FILE`",
        "replaces them from the next decision on, `steer replay --journal HOME --policy FILE` tries them on",
        "what happened. A file holds one mapping, YAML or JSON; what is not written has its default. Times",
        "are in milliseconds.",
        "",
    ]
    rows = [(f"`{name}`", f"`{shown(getattr(default, name))}`", words) for name, words in NOTES.items()]
    lines += _table(("key", "default", "meaning"), rows)
    return "\n".join([*lines, ""])


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.make_metavar(None) if not parameter.metavar else parameter.metavar}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _command(path: str, command: Any) -> Iterator[str]:
    """A verb with its arguments and options, then its own verbs."""
    yield f"{'#' * len(path.split())} `{path}`"
    yield ""
    yield " ".join((command.help or "").split())
    yield ""
    shown = [item for item in command.params if item.name not in _OF_EVERY_PARSER]
    if shown:
        rows = [(_names(item), getattr(item, "help", None) or "") for item in shown]
        yield from _table(("argument or option", "meaning"), rows)
        yield ""
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _command(f"{path} {name}", inner)


def cli_page() -> str:
    """docs/reference/cli.md."""
    lines = [
        "# The verbs of `steer`",
        "",
        MADE,
        "",
        "`steer VERB --help` says the same on the terminal.",
        "",
    ]
    for name, verb in root.VERBS.items():
        if verb.words:
            lines += _command(f"steer {name}", root.load_verb(name))
        else:
            first = next(other for other, it in root.VERBS.items() if it.module == verb.module and it.words)
            lines += [f"## `steer {name}`", "", f"The same as `steer {first}`.", ""]
    return "\n".join(lines)


def _diagram(
    first: StrEnum, last: tuple[StrEnum, ...], moves: Mapping[tuple[Any, str], frozenset[Any]]
) -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {first}"
    for (before, cause), afters in moves.items():
        for after in sorted(afters, key=list(type(first)).index):
            yield f"    {before} --> {after}: {cause}"
    for state in last:
        yield f"    {state} --> [*]"
    yield "```"


def diagrams() -> dict[str, str]:
    """The generated parts of docs/architecture.md, by their mark."""
    finals = tuple(phase for phase in Phase if phase in FINAL_PHASES)
    return {
        "workload-phases": "\n".join(_diagram(Phase.DECLARED, finals, PHASE_MOVES)),
        "run-states": "\n".join(_diagram(RunState.STARTING, (RunState.ENDED,), RUN_MOVES)),
    }


def with_diagrams(text: str) -> str:
    """A page with the diagrams put between their marks. Raises KeyError when a mark is missing."""
    for name, diagram in diagrams().items():
        opening, closing = f"<!-- made: {name} -->", f"<!-- end: {name} -->"
        if opening not in text or closing not in text:
            raise KeyError(f"{ARCHITECTURE.name} has no mark {opening}")
        before, _, rest = text.partition(opening)
        _, _, after = rest.partition(closing)
        text = f"{before}{opening}\n{diagram}\n{closing}{after}"
    return text


def architecture_page() -> str:
    """docs/architecture.md, with its diagrams as they should be."""
    return with_diagrams(ARCHITECTURE.read_text(encoding="utf-8"))


PAGES: Mapping[Path, Callable[[], str]] = {
    DOCS / "reference" / "spec.md": spec_page,
    DOCS / "reference" / "cli.md": cli_page,
    DOCS / "reference" / "policy.md": policy_page,
    ARCHITECTURE: architecture_page,
}
"""Every page that is made, or has parts that are, and what it should hold."""


def main(arguments: list[str]) -> int:
    """Write the pages, or say which differ."""
    made = [(path, page()) for path, page in PAGES.items()]
    stale = [
        (path, text) for path, text in made if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        if "--check" in arguments:
            print(f"{path.relative_to(DOCS.parent)} is not what the code says; hint: make docs")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
