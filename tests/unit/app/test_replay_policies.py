"""`steer replay --journal FILE --policy FILE`: what is refused, what is printed, and the picture."""

import contextlib
import json
import os
import re
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.replay.history_scene import Asked, lived, node, some_jobs, some_nodes

from steersman.app.cli import picture, replay
from steersman.app.cli.picture import COLOURS, page
from steersman.app.cli.replay import Asked as Options
from steersman.app.cli.replay import _side_by_side
from steersman.app.cli.replay_policies import POLICIES_MAX, home_of, read_policies, shown
from steersman.journal import MemoryJournal, SqliteJournal
from steersman.model.errors import (
    ConflictError,
    HomeError,
    JournalCorrupt,
    JournalNewer,
    SpecError,
    SteersmanError,
)
from steersman.model.policy import Policy
from steersman.sensors.runs import RunSensor
from steersman.sim.replay.policies import Column, Comparison, compare
from steersman.sim.replay.result import silent


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("lived") / "home"
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        lived(some_nodes(), some_jobs(2, 8), journal=journal)
    return home


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "never.yaml"
    path.write_text("preempt_attempts_per_cycle: 0\n")
    return path


def asked(journal: Path, *policies: Path, html: Path | None = None, as_json: bool = False) -> int:
    return _side_by_side(Options(journal=journal, policy=list(policies), html=html, json=as_json))


def test_the_table_has_a_column_a_policy(
    lived_in: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(lived_in, policy) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].endswith("8 jobs ended by themselves")
    assert re.split(r"  +", out.splitlines()[2]) == ["METRIC", "recorded", "as it was", "never"]
    assert re.search(r"^jobs_ended +8 +8 +8$", out, re.MULTILINE)
    assert re.search(r"^slo_missed_share +unknown", out, re.MULTILINE)
    assert err == ""


def test_json_and_the_file_in_the_home(
    lived_in: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "out.html"
    assert asked(lived_in / "journal.db", policy, html=html, as_json=True) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=Comparison)
    assert [column.name for column in found.columns] == ["recorded", "as it was", "never"]
    assert found.columns[2].policy == Policy(preempt_attempts_per_cycle=0)
    assert html.read_text() == page(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["never.yaml", "out.html"], (
        "nothing half written"
    )


def test_options_that_do_not_go_together(policy: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"problem": "jobs", "policy": [policy]}, "for a journal, not for a problem"),
        ({"problem": "", "files": [policy], "policy": [policy]}, "for a journal"),
        ({"html": tmp_path / "x.html", "journal": tmp_path}, "none is given"),
    ):
        with pytest.raises(ConflictError, match=words) as refused:
            replay.replay(**options)
        assert refused.value.hint


def test_files_of_policies_that_are_refused(tmp_path: Path, policy: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    twin, taken, binary = other / "never.json", tmp_path / "recorded.yaml", tmp_path / "b.yaml"
    twin.write_text("{}")
    taken.write_text("{}")
    binary.write_bytes(b"\xff\xfe\x00")
    for files, error, words in (
        ([tmp_path / "none.yaml"], SpecError, "cannot be read"),
        ([other], SpecError, "cannot be read"),
        ([binary], SpecError, "not UTF-8"),
        ([policy, twin], ConflictError, "two policies are called 'never'"),
        ([taken], ConflictError, "two policies are called 'recorded'"),
        ([policy] * (POLICIES_MAX + 1), ConflictError, "17 policies"),
    ):
        with pytest.raises(error, match=words) as refused:
            read_policies(files)
        assert isinstance(refused.value, SteersmanError)
        assert refused.value.hint
    assert read_policies([policy]) == [("never", Policy(preempt_attempts_per_cycle=0))]


def _newer(home: Path) -> None:
    with sqlite3.connect(home / "journal.db") as connection:
        connection.execute("PRAGMA user_version = 999")


def _cut(home: Path) -> None:
    path = home / "journal.db"
    for beside in ("journal.db-wal", "journal.db-shm"):
        (home / beside).unlink(missing_ok=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(home: Path) -> None:
    (home / "journal.db").write_bytes(b"")
    (home / "journal.db-wal").unlink(missing_ok=True)


def _other(home: Path) -> None:
    (home / "journal.db").write_bytes(b"not a journal" * 1_000)


def _altered(home: Path) -> None:
    with sqlite3.connect(home / "journal.db") as connection:
        connection.execute("UPDATE events SET body = x'7b7d' WHERE position = 9")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_newer, JournalNewer),
        (_cut, JournalCorrupt),
        (_empty, JournalCorrupt),
        (_other, JournalCorrupt),
        (_altered, JournalCorrupt),
    ],
)
def test_journals_that_are_refused(
    tmp_path: Path, policy: Path, spoil: Callable[[Path], None], error: type[SteersmanError]
) -> None:
    home = tmp_path / "home"
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        lived(
            [node(0, 2_000)],
            [Asked(name=f"a{at}", at_ms=at, run_ms=1_000) for at in range(40)],
            journal=journal,
        )
    spoil(home)
    with pytest.raises(error) as refused:
        asked(home, policy)
    assert refused.value.hint


def test_what_is_no_home(tmp_path: Path, policy: Path) -> None:
    with pytest.raises(HomeError, match="there is no home"):
        asked(tmp_path / "nowhere", policy)
    with pytest.raises(HomeError, match="is not called journal") as refused:
        home_of(policy)
    assert "journal.db" in refused.value.hint
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o700)
    with pytest.raises(HomeError, match="there is no journal"):
        asked(empty, policy)


def test_a_picture_that_cannot_be_written_leaves_nothing(
    lived_in: Path, policy: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConflictError, match="cannot write") as refused:
        asked(lived_in, policy, html=tmp_path / "no" / "x.html")
    assert refused.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConflictError, match="cannot write"):
        asked(lived_in, policy, html=tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["folder", "never.yaml"]


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("cost_usd", None, "unknown"),
        ("wait_s_p99", None, "-"),
        ("evictions", 12_345, "12,345"),
        ("wait_s_mean", 1_234.5678, "1,234.57"),
        ("core_utilisation", 0.91234, "0.9123"),
    ],
)
def test_numbers_for_people(metric: str, value: float | None, words: str) -> None:
    assert shown(metric, value) == words


# The picture.


def drawn(text: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg viewBox=\"0 0 960.*?</svg>", text, re.DOTALL)]


def comparison(names: tuple[str, ...] = ("never",)) -> Comparison:
    journal = lived(
        some_nodes(), some_jobs(3, 10, priority=(0, 1), saves=(True, False)), journal=MemoryJournal()
    )
    policies = [(name, Policy(preempt_run_ms_min=at)) for at, name in enumerate(names)]
    return compare(journal.read(), journal.head().position, policies, RunSensor, silent)


def test_the_picture_is_whole_by_itself() -> None:
    text = page(comparison())
    assert not re.search(r"(?:src|href|url|@import|<script|http)", text), (
        "nothing is fetched and nothing runs"
    )
    assert "prefers-color-scheme: dark" in text
    assert text.startswith("<!doctype html>")
    bars, cores, waits = drawn(text)
    assert len(bars.findall("rect")) % 3 == 0
    for plot, axes in (
        (cores, ("leased cores", "time since the begin of the journal, minutes")),
        (waits, ("jobs that waited no longer, %", "wait from declaration to begin, s (logarithmic)")),
    ):
        words = [label.text for label in plot.findall("text")]
        assert all(axis in words for axis in axes)
        lines = plot.findall("polyline")
        assert [line.get("stroke") for line in lines] == list(COLOURS[:3])
        assert len({line.get("stroke-dasharray") for line in lines}) == 3


def test_everything_drawn_is_inside_the_picture() -> None:
    for svg in drawn(page(comparison(tuple(f"policy-number-{at}" for at in range(POLICIES_MAX))))):
        _, _, width, height = (float(part) for part in svg.attrib["viewBox"].split())
        for line in svg.findall("polyline"):
            for point in line.attrib["points"].split():
                x, y = (float(part) for part in point.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height
        for rect in svg.findall("rect"):
            assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
            assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= height
        for label in svg.findall("text"):
            if label.get("x") is None:
                continue
            wide = 7.5 * len(label.text or "")
            left = {"end": wide, "middle": wide / 2}.get(label.get("text-anchor", ""), 0.0)
            assert float(label.attrib["x"]) - left >= -2, label.text
            assert float(label.attrib["x"]) - left + wide <= width + 2, label.text


def test_sixteen_policies_look_all_different() -> None:
    assert len({picture._look(at) for at in range(POLICIES_MAX + 2)}) == POLICIES_MAX + 2


def test_names_cannot_break_out_of_the_picture() -> None:
    text = page(comparison(("<b>&\"'",)))
    assert "<b>&\"'" not in text
    assert "&lt;b&gt;&amp;" in text
    assert len(drawn(text)) == 3


def test_a_picture_of_nothing() -> None:
    metrics = {"wait_s_mean": None, "evictions": 0}
    nothing = Column(name="recorded", policy=None, metrics=metrics, cores=(), waits_s=())
    text = page(Comparison(events=1, span_s=0.0, jobs=0, columns=(nothing,), dropped={"things <left>": 2}))
    assert len(drawn(text)) == 3
    assert "2 things &lt;left&gt;" in text
    assert json.dumps(text)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (1234.5, "1,234"), (12.345, "12.3"), (0.01234, "0.0123"), (100, "100"), (1e-9, "0")],
)
def test_numbers_in_the_picture(value: float, words: str) -> None:
    assert picture._number(value) == words
