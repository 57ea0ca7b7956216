from xml.etree import ElementTree

import pytest

from include.reports import plots


@pytest.mark.parametrize(
    ("longest", "ticks"),
    [
        (0.024, ["0", "0.005", "0.01", "0.015", "0.02"]),
        (7.3, ["0", "2", "4", "6"]),
        (90, ["0", "20", "40", "60", "80"]),
    ],
)
def test_axes_carry_round_numbers(longest: float, ticks: list[str]) -> None:
    drawn = ElementTree.fromstring(
        plots.chart("looks", ("minutes", "worse by"), [plots.PlotLine("10 %", [0, longest], [5.5, 5.6])])
    )
    assert [text for text in drawn.itertext() if text in ticks] == ticks


def test_what_lies_outside_of_the_range_is_drawn_at_its_edge() -> None:
    far = plots.PlotLine("10 %", [0, 1], [0, 0], lower=[-9, -1], upper=[9, 1])
    drawn = ElementTree.fromstring(plots.chart("looks", ("minutes", "worse by"), [far], level=0.5, y_range=(-1, 1)))
    (band,) = (part for part in drawn if part.tag.endswith("polygon"))
    heights = [float(point.split(",")[1]) for point in band.attrib["points"].split()]
    assert min(heights) == plots.TOP
    assert max(heights) == plots.HEIGHT - plots.BOTTOM


def test_a_single_look_is_a_dot_on_its_interval() -> None:
    alone = plots.PlotLine("100 %", [0], [0.5], lower=[0.0], upper=[1.0])
    drawn = ElementTree.fromstring(plots.chart("looks", ("minutes", "worse by"), [alone], y_range=(0, 1)))
    (dot,) = (part for part in drawn if part.tag.endswith("circle"))
    assert float(dot.attrib["cy"]) == pytest.approx((plots.TOP + plots.HEIGHT - plots.BOTTOM) / 2)
