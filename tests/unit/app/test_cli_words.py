"""What the command line prints: harmless, aligned, in few words."""

import io
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.app.cli import table
from steersman.app.cli.files import collect
from steersman.app.cli.root import VERBS, load_verb
from steersman.app.cli.say import clean, columns, one_line
from steersman.app.wire import Row
from steersman.model.errors import SpecError

HARMLESS = {"\n", "\t"}
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(text=st.text(max_size=200))
def test_nothing_steers_the_terminal(text: str) -> None:
    shown = clean(text)
    for char in shown:
        assert char in HARMLESS or unicodedata.category(char) not in {"Cc", "Cs", "Zl", "Zp"}
        assert unicodedata.bidirectional(char) not in BIDI
    assert "\n" not in one_line(text)
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünïcode 漢字 😀", "plain – ünïcode 漢字 😀"),
        ("a\x1b]0;title\x07b", "a\\u001b]0;title\\u0007b"),
        ("50%\r100%\r\ndone", "50%\n100%\ndone"),
        ("\x9b2J", "\\u009b2J"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\udc80", "\\udc80"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_columns_are_aligned() -> None:
    assert columns(("A", "LONG"), [("xyz", "1"), ("x", "2\n3")]) == "A    LONG\nxyz  1\nx    2\\n3"


@pytest.mark.parametrize(
    ("duration_ms", "words"),
    [(-5, "0s"), (59_999, "59s"), (60_000, "1m"), (3_600_000, "1h0m"), (90_000_000, "1d1h")],
)
def test_ages(duration_ms: int, words: str) -> None:
    assert table.age(duration_ms) == words


def test_progress_tells_what_is_known_only() -> None:
    row = Row(name="a", phase="active", settled=False)
    assert table.progress(row) == ""
    row = Row(
        name="a",
        phase="active",
        settled=False,
        step=4000.0,
        steps_total=12000.0,
        loss=0.21345,
        samples_per_second=1520.4,
    )
    assert table.progress(row) == "step 4000/12000, loss 0.2135, 1520 samples/s"


def test_the_queue_is_in_the_order_of_the_decider() -> None:
    rows = [
        Row(name="late", phase="queued", settled=False, priority=0, declared_at=9),
        Row(name="runs", phase="active", settled=False, priority=9, declared_at=1),
        Row(name="early", phase="queued", settled=False, priority=0, declared_at=3),
        Row(name="urgent", phase="backoff", settled=False, priority=5, declared_at=11),
    ]
    assert [row.name for row in table.queue_order(rows)] == ["urgent", "early", "late"]
    assert [cells[:2] for cells in table.queue_rows(rows)] == [("1", "urgent"), ("2", "early"), ("3", "late")]


def test_what_a_gang_asks_for() -> None:
    row = Row(
        name="a",
        phase="queued",
        settled=False,
        num_nodes=4,
        cpu_milli=500,
        memory_bytes=2**30,
        accelerators={"A100": 2},
    )
    assert table.asks(row) == "4 × (0.5 cores, 1 GiB, 2 A100)"


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_loads(name: str) -> None:
    command = load_verb(name)
    assert command.name == name
    assert command.help or name == "apply"


def test_documents_know_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    for name in ("b.yaml", "a.YML", "c.txt", "d.yaml.bak"):
        (folder / name).write_text(f"# {name}\n")
    (folder / "e.yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"# stdin\n")))
    found = collect(["jobs", "-", "jobs/c.txt"]).documents
    assert [(each.source, each.text) for each in found] == [
        ("jobs/a.YML", "# a.YML\n"),
        ("jobs/b.yaml", "# b.yaml\n"),
        ("stdin", "# stdin\n"),
        ("jobs/c.txt", "# c.txt\n"),
    ]
    assert {each.folder for each in found} == {str(folder), str(tmp_path)}


@pytest.mark.parametrize("name", ["none.yaml", "a\0b", "x" * 5_000])
def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        collect([str(tmp_path / name)])
