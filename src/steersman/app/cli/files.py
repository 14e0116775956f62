"""The files that a user names: declarations in files, folders and standard input, and single texts."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from steersman.app.wire import DOCUMENTS_MAX, Document, Submission
from steersman.model.errors import SpecError
from steersman.spec.nodes import BYTES_MAX
from steersman.spec.parse import decode

STDIN = "-"
STDIN_SOURCE = "stdin"
ENDINGS = frozenset({".yaml", ".yml"})


def collect(names: Sequence[str]) -> Submission:
    """Everything that the names lead to, in order. Raises SpecError."""
    documents = [document for name in names for document in _documents(name)]
    if len(documents) > DOCUMENTS_MAX:
        raise SpecError(
            f"these are {len(documents)} files, and a submission has at most {DOCUMENTS_MAX}",
            hint="put several workloads into one file, divided by `---`",
        )
    return Submission(documents=tuple(documents))


def _documents(name: str) -> Iterator[Document]:
    if name == STDIN:
        yield _read(sys.stdin.buffer, STDIN_SOURCE, Path.cwd())
        return
    path = Path(name)
    with _readable(name):
        files = _declarations(path) if path.is_dir() else [path]
    if not files:
        raise SpecError("the folder holds no *.yaml or *.yml file", source=name, hint="name a file")
    for each in files:
        folder = Path(os.path.abspath(each)).parent  # noqa: PTH100 - absolute keeps `..`, resolve follows links
        with _readable(str(each)), each.open("rb") as file:
            yield _read(file, str(each), folder)


def _declarations(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in ENDINGS and each.is_file())


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(f"cannot be read: {words}", source=name, hint="check its name and mode") from error


def _read(file: BinaryIO, source: str, folder: Path) -> Document:
    text = decode(file.read(BYTES_MAX + 1), source)
    return Document(source=source, text=text, folder=str(folder))


def read_text(file: Path) -> str:
    """The text of one file. Raises SpecError."""
    with _readable(str(file)), file.open("rb") as opened:
        return _read(opened, str(file), file.parent).text
