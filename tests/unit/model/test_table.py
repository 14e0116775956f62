"""Persistent tables against plain dicts and lists, and the old versions they must leave alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.model.table import CHUNK_MAX, SortedSeq, Table

_keys = st.text("abcdefg", max_size=3)
_edits = st.lists(st.tuples(_keys, st.one_of(st.none(), st.integers())), max_size=60)
_entries = st.lists(st.tuples(st.booleans(), st.integers(0, 1_500)), max_size=120)


@given(_edits, _edits)
def test_a_table_is_a_dict_whose_past_stays(
    first: list[tuple[str, int | None]], second: list[tuple[str, int | None]]
) -> None:
    model: dict[str, int] = {}
    table: Table[int] = Table()
    for edits in (first, second):
        past, kept = table, dict(table.items())
        editor = table.edit()
        for key, value in edits:
            if value is None:
                if key in editor:
                    del editor[key]
                    del model[key]
            else:
                editor[key] = value
                model[key] = value
            assert editor.get(key) == model.get(key)
        assert editor.sorted_items() == sorted(model.items())
        table = editor.freeze()
        assert dict(past.items()) == kept
        assert len(past) == len(kept)
    assert table.sorted_items() == sorted(model.items())
    assert len(table) == len(model)
    assert table == Table.of(sorted(model.items(), reverse=True))
    assert all(
        key in table and table[key] == value and table.get(key) == value for key, value in model.items()
    )
    assert table.get("absent") is None
    assert "absent" not in table


def test_a_key_that_is_absent_is_an_error() -> None:
    with pytest.raises(KeyError):
        Table.of([("a", 1)])["b"]
    with pytest.raises(KeyError):
        Table.of([("a", 1)]).edit()["b"]
    with pytest.raises(TypeError):
        hash(Table())
    assert Table() != {}


@given(st.sets(st.integers(0, 1_500)), _entries)
def test_a_sorted_sequence_is_a_sorted_set_whose_past_stays(
    start: set[int], edits: list[tuple[bool, int]]
) -> None:
    model = set(start)
    seq = SortedSeq.of((number,) for number in start)
    editor = seq.edit()
    for adds, number in edits:
        if adds and number not in model:
            editor.add((number,))
            model.add(number)
        elif not adds and number in model:
            editor.remove((number,))
            model.discard(number)
        assert editor.first() == ((min(model),) if model else None)
        assert [entry[0] for entry in editor.since((number,))] == sorted(
            one for one in model if one >= number
        )
    after = editor.freeze()
    assert [entry[0] for entry in seq] == sorted(start)
    assert [entry[0] for entry in after] == sorted(model)
    assert (len(after), bool(after)) == (len(model), bool(model))
    assert after == SortedSeq.of((number,) for number in model)
    assert [entry[0] for entry in after.since((700,))] == sorted(one for one in model if one >= 700)


def test_long_sequences_are_cut_into_chunks() -> None:
    editor = SortedSeq().edit()
    for number in range(3 * CHUNK_MAX):
        editor.add((number * 7 % 1_009,))
    seq = editor.freeze()
    assert len(seq.chunks) > 2
    assert all(len(chunk) <= CHUNK_MAX for chunk in seq.chunks)
    assert seq.firsts == [chunk[0] for chunk in seq.chunks]
    assert list(seq) == sorted(seq)
    assert list(seq.since((500,))) == [entry for entry in seq if entry >= (500,)]
    again = seq.edit()
    for entry in list(seq):
        again.remove(entry)
    assert again.first() is None
    assert not again.freeze()


@pytest.mark.parametrize("absent", [(0,), (5,), (9,)])
def test_removing_what_is_not_there_is_a_programmers_error(absent: tuple[int]) -> None:
    with pytest.raises(AssertionError):
        SortedSeq.of([(4,), (6,)]).edit().remove(absent)


def test_sequences_compare_by_content() -> None:
    assert SortedSeq() != []
    assert SortedSeq.of([(1,)]).first() == (1,)
    assert SortedSeq().first() is None
    with pytest.raises(TypeError):
        hash(SortedSeq())
