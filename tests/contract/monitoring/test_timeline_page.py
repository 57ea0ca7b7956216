"""The pages that people read: whole, self-contained, and in step with what happened."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.adapters.monitoring import evidently
from include.domain.windows import parse_utc
from include.reports import timeline_page
from include.stages.monitoring import timeline
from include.stages.monitoring.timeline import Course
from tests.watching import ROWS, SPEC, World, reversed_truth


class Marks(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.live(range(42, 50), land=reversed_truth)
    world.decide()
    return world


def course(world: World) -> Course:
    found = timeline.course(SPEC, tables=world.tables, signals=world, registry=world.registry, ledger=world.ledger)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_the_page_shows_performance_drift_and_the_request_and_loads_nothing(world: World, tmp_path: Path) -> None:
    text = timeline_page.write(course(world), tmp_path / "reports" / "watch.html").read_text()
    marks = Marks(text)
    assert marks.links == []
    assert marks.tags.count("rect") > 2 * 22
    assert marks.tags.count("circle") >= 3 * 7 + 2 * 8
    assert text.count('stroke="#b3261e" stroke-width="2.5"><title>2013-02-25: logloss: logloss') == 3
    assert '<p class="said yes"><b>A training was asked for</b>' in text
    assert "<td>train<td>logloss" in text
    assert '<td class="fire">fire<td>logloss' in text
    assert re.search(r"<title>d1: [\d.]+% in training, [\d.]+% now", text)


def test_after_a_retraining_the_page_says_whether_the_cause_has_gone(world: World) -> None:
    world.registry.champion = world.train("2", 8)
    for day in range(50, 58):
        world.land(day)
        world.serve(day, version="2")
    world.decide("watch-2")
    assert "With version 2 the cause has gone." in timeline_page.page(course(world))


def test_a_name_with_markup_in_it_stays_text(world: World) -> None:
    assert "<script>" not in timeline_page.page(Course(**{**vars(course(world)), "model": "<script>"}))


@pytest.mark.filterwarnings("ignore")
def test_evidently_reports_the_newest_window_beside_like_ones_and_leaves_out_what_has_no_value(
    world: World, tmp_path: Path
) -> None:
    def nameless(columns: dict[str, Any]) -> dict[str, Any]:
        return {**columns, "dest": pa.nulls(ROWS, pa.string())}

    assert timeline.sides(SPEC, tables=world.tables, registry=world.registry).categorical == ["dest"]  # type: ignore
    world.land(50, nameless)
    sides = timeline.sides(SPEC, tables=world.tables, registry=world.registry)  # type: ignore[arg-type]
    assert sides is not None
    assert (sides.window, sides.numeric, sides.categorical) == ("2013-02-26", ["temp"], [])
    assert {parse_utc(w).weekday() for w in sides.reference["window"].unique().to_pylist()} == {1}
    path = evidently.write(sides.reference, sides.newest, sides.numeric, sides.categorical, tmp_path / "drift.html")
    assert "temp" in path.read_text()
