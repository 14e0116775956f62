"""The project's own files, parsed once, for the tests that read them."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
CODE_FOLDERS = ("src", "tests", "bench", "examples", "docs")
CORE = ("model", "spec", "state", "decide", "explain")
TEXT_SUFFIXES = frozenset({".py", ".md", ".toml", ".yaml", ".yml", ".json", ""})
IGNORED_PARTS = frozenset({"__pycache__", "results", "golden"})


class Source(NamedTuple):
    """One Python file."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Its path in the project."""
        return str(self.path.relative_to(ROOT))

    @property
    def in_core(self) -> bool:
        """Whether it belongs to the pure core."""
        parts = self.path.relative_to(ROOT).parts
        return parts[:2] == ("src", "steersman") and parts[2] in CORE

    def at(self, node: ast.AST) -> str:
        """Where a node stands, for messages."""
        return f"{self.name}:{getattr(node, 'lineno', 0)}"


def _files(folder: str, pattern: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob(pattern)) if not IGNORED_PARTS & set(path.parts)]


def _read(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path, text, ast.parse(text, str(path)))


SOURCES = tuple(_read(path) for folder in CODE_FOLDERS for path in _files(folder, "*.py"))
PRODUCT = tuple(source for source in SOURCES if SRC in source.path.parents)
TESTS = tuple(source for source in SOURCES if ROOT / "tests" in source.path.parents)
PAGES = (*sorted(ROOT.glob("*.md")), *_files("docs", "*.md"), *_files("examples", "*.md"))


def text_files() -> Iterator[Path]:
    """Every text file of the project that people wrote."""
    for folder in (*CODE_FOLDERS, ".ci"):
        for path in _files(folder, "*"):
            if path.is_file() and path.suffix in TEXT_SUFFIXES:
                yield path
    for path in sorted(ROOT.glob("*")):
        if path.is_file() and path.suffix in TEXT_SUFFIXES and not path.name.startswith(".coverage"):
            yield path


def comments(source: Source) -> list[tuple[int, str]]:
    """(line, text) of every comment; text in strings is none."""
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for such an expression, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""
