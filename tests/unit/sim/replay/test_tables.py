"""The reader of traces: what it gives, and that nothing broken passes."""

import gzip
from pathlib import Path

import pytest

from steersman.model.errors import TraceError
from steersman.sim.replay.tables import (
    Row,
    amount,
    check_new,
    check_order,
    head_of,
    number,
    read_table,
    whole,
    word,
)

GOOD = "t_s,name,more\n0,a,x\n1.5,b,y\n\n2,c,\n"
COLUMNS = {"name": word, "t_s": amount}


def written(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_columns_are_found_by_name_and_others_passed_over(tmp_path: Path, packed: bool) -> None:
    path = written(tmp_path, gzip.compress(GOOD.encode(), mtime=0) if packed else "\ufeff" + GOOD)
    assert list(read_table(path, COLUMNS)) == [Row(2, ("a", 0.0)), Row(3, ("b", 1.5)), Row(5, ("c", 2.0))]
    assert head_of(path) == ("t_s", "name", "more")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("name\na\n", "t.csv:1: there is no column 't_s'; there are name"),
        ("t_s,name,name\n", "column 'name' is there twice"),
        ("t_s,name\n1,a\n2\n", "t.csv:3: 1 fields where the head has 2"),
        ("t_s,name\n1,a,b\n", "t.csv:2: 3 fields where the head has 2"),
        ("t_s,name\nsoon,a\n", "t.csv:2: t_s is 'soon'"),
        ("t_s,name\n-1,a\n", "below 0"),
        ("t_s,name\nnan,a\n", "not a finite number"),
        ("t_s,name\n1e30,a\n", "not a finite number"),
        ("t_s,name\n1,\n", "name is '': empty"),
        ('t_s,name\n1,"a\n', "t.csv:2: unexpected end of data"),
        ("t_s,name\n1," + "a" * 20_000 + "\n", "field larger than field limit"),
        (b"t_s,name\n1,\xff\n", "not text in UTF-8"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-9], "cut off or damaged"),
        (gzip.compress(GOOD.encode(), mtime=0)[:10] + b"\xff" * 40, "cut off or damaged"),
    ],
)
def test_what_is_broken_is_refused_with_its_place(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(TraceError) as refused:
        list(read_table(written(tmp_path, content), COLUMNS))
    assert words in refused.value.message
    assert refused.value.hint


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        list(read_table(tmp_path / "none.csv", COLUMNS))
    with pytest.raises(TraceError, match="directory"):
        head_of(tmp_path)


def test_rows_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.sim.replay.tables.ROWS_MAX", 3)
    with pytest.raises(TraceError, match="more than 3 rows"):
        list(read_table(written(tmp_path, GOOD), COLUMNS))


def test_values() -> None:
    assert (number("-2.5"), amount("0"), whole("3.0"), word("x")) == (-2.5, 0.0, 3, "x")
    with pytest.raises(ValueError, match="whole"):
        whole("3.1")


def test_order_and_names(tmp_path: Path) -> None:
    path, seen = tmp_path / "t.csv", set[str]()
    check_order(path, 3, 1.0, 1.0, "t_s")
    with pytest.raises(TraceError, match=r"t\.csv:3: t_s goes back from 2 to 1"):
        check_order(path, 3, 2.0, 1.0, "t_s")
    check_new(path, 2, "a", seen)
    with pytest.raises(TraceError, match=r"t\.csv:3: 'a' is there twice"):
        check_new(path, 3, "a", seen)
