"""Pictures: axes, cuts at the edges, and documents that are whole."""

from xml.etree import ElementTree as ET

import pytest
from bench.decide.picture import Axis, Panel, Picture, Rule, Series

X = Axis("load", 0.0, 10.0, [(0, "0"), (10, "10")])
Y = Axis("cost & more", 1.0, 100.0, [(1, "1"), (10, "10"), (100, "100")], log=True)
SVG = "{http://www.w3.org/2000/svg}"


def test_axes_are_straight_or_logarithmic() -> None:
    assert [X.place(at) for at in (0, 5, 10, 20)] == [0, 0.5, 1, 2]
    assert [Y.place(at) for at in (1, 10, 100, 0)] == pytest.approx([0, 0.5, 1, 0])
    assert (X.within(-1), X.within(3), X.within(99)) == (0, 3, 10)


def picture(*series: Series) -> Picture:
    panel = Panel("a < b", X, Y, series, [Rule(10, "goal"), Rule(5, "half", upright=True)])
    return Picture("Title", "note", ("ours", "theirs"), [panel, panel, panel], 2)


def test_a_document_is_whole_and_the_same_each_time() -> None:
    made = picture(
        Series("ours", [(1, 2), (2, 50)], line=True),
        Series("theirs", [(3, 20)], hollow=True),
    )
    root = ET.fromstring(made.svg())
    assert made.svg() == made.svg()
    assert (root.get("width"), root.get("height")) == ("800", str(80 + 2 * 278))
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert words.count("a < b") == words.count("goal") == words.count("cost & more") == 3
    assert len(list(root.iter(f"{SVG}polyline"))) == 3
    assert len(list(root.iter(f"{SVG}polygon"))) == 1 + 3  # the legend's, and one a panel


def test_a_dot_beyond_the_axis_is_at_the_edge_with_its_value() -> None:
    inside, beyond = (
        ET.fromstring(picture(Series("ours", [(5, value)])).svg()) for value in (100.0, 2_070.0)
    )
    places = [[one.get("cy") for one in root.iter(f"{SVG}circle")] for root in (inside, beyond)]
    assert places[0] == places[1]
    assert "2.07e+03" in [one.text for one in beyond.iter(f"{SVG}text")]
    assert "100" in [one.text for one in inside.iter(f"{SVG}text")]
