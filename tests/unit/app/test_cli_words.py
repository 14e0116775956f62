"""What the command line prints: harmless, aligned, in few words."""

import io
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.app.cli import explain, table
from steersman.app.cli.files import collect
from steersman.app.cli.root import VERBS, load_verb
from steersman.app.cli.say import clean, columns, one_line
from steersman.app.cli.terminal import GAP_CELLS, fitted
from steersman.app.wire import Row
from steersman.explain.refusals import Refusal
from steersman.model.errors import SpecError
from steersman.model.ids import NodeId
from steersman.model.reasons import Code

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


ROWS = table.status_rows(
    [
        Row(
            name="hello",
            phase="succeeded",
            settled=True,
            run="hello.12",
            nodes=("local",),
            reason="succeeded",
        ),
        Row(
            name="train",
            phase="active",
            settled=False,
            run="train.1042",
            run_state="running",
            nodes=("local",),
            step=4000,
            steps_total=12000,
            loss=0.21345,
            samples_per_second=1520.4,
            reason="placed on local: the best fit among the nodes with room; resumes from step 3800",
        ),
    ]
)
ORDER = ["AGE", "PREEMPTED", "FAILED", "NODE", "RUN"]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 140, 200])
def test_a_table_fits_its_terminal(width: int) -> None:
    """Columns leave in their order, all words stay whole, and only the last column is cut."""
    found = fitted(table.STATUS_HEAD, ROWS, width)
    assert sum(max(map(len, column)) + GAP_CELLS for column in found) - GAP_CELLS <= width
    heads = [column[0] for column in found]
    gone = [name for name in ORDER if name not in heads]
    assert gone == ORDER[: len(gone)]
    assert heads == [name for name in table.STATUS_HEAD if name not in gone]
    for row, cells in enumerate(ROWS, start=1):
        for name, cell in zip(table.STATUS_HEAD, cells, strict=True):
            if name in heads:
                shown = found[heads.index(name)][row]
                whole = cell == shown
                cut = shown.endswith("…") and cell.startswith(shown[:-1].rstrip())
                fewer = cell.startswith(f"{shown}, ")
                assert whole or (cut and name == "REASON") or (fewer and name == "PROGRESS"), (name, shown)
    assert len(found[-1][2]) >= 16


def test_a_wide_terminal_shows_everything() -> None:
    found = fitted(table.STATUS_HEAD, ROWS, 250)
    assert [tuple(column) for column in found] == list(zip(table.STATUS_HEAD, *ROWS, strict=True))


def test_wide_characters_are_counted_as_they_are_drawn() -> None:
    *_, last = fitted(("NAME", "REASON"), [("a", "漢" * 40)], 40)
    assert last[1] == "漢" * 16 + "…"


def test_a_reason_that_is_the_phase_is_said_once() -> None:
    row = Row(name="a", phase="succeeded", settled=True, reason="succeeded")
    assert table.phase_and_reason(row) == "succeeded"
    row = Row(name="a", phase="failed", settled=True, reason="exited with 3")
    assert table.phase_and_reason(row) == "failed: exited with 3"


@pytest.mark.parametrize(
    ("code", "asked", "free", "words"),
    [
        (Code.NO_CORES, 1_500, 0, ": asks for 1.5 cores, 0 cores free"),
        (Code.NO_MEMORY, 2**30, 2**20, ": asks for 1 GiB, 1 MiB free"),
        (Code.NO_DEVICES, 2, 1, ": asks for 2, 1 free"),
        (Code.NO_NODES, 0, 0, ""),
    ],
)
def test_refusals_are_in_the_units_of_people(code: Code, asked: int, free: int, words: str) -> None:
    assert explain.amounts(Refusal(node=NodeId("n"), code=code, asked=asked, free=free)) == words


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
