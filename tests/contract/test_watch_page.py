"""The pages that people read: whole, self-contained, and in step with what happened."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from include.adapters import evidently, watch_page
from include.domain.course import Course
from include.domain.windows import Window, parse
from include.stages import history
from include.stages.sketching import window_of
from tests.watching import SPEC, World, reversed_truth


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
    found = history.course(SPEC, tables=world.tables, signals=world, registry=world.registry, ledger=world.ledger)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_the_page_shows_performance_drift_and_the_request_and_loads_nothing(world: World, tmp_path: Path) -> None:
    text = watch_page.write(course(world), tmp_path / "reports" / "watch.html").read_text()
    marks = Marks(text)
    assert marks.links == []
    assert marks.tags.count("rect") > 2 * 22
    assert marks.tags.count("circle") >= 8 + 7
    assert 'stroke="#b3261e"><title>logloss: logloss' in text
    assert "<td>train<td>logloss" in text


def test_a_name_with_markup_in_it_stays_text(world: World) -> None:
    assert "<script>" not in watch_page.page(Course(**{**vars(course(world)), "model": "<script>"}))


@pytest.mark.filterwarnings("ignore")
def test_evidently_reports_both_sides(world: World, tmp_path: Path) -> None:
    def rows(*days: str) -> Window:
        return [window_of(d, SPEC.window) for d in days if parse(d)]  # type: ignore[return-value]

    then, now = (world.tables.read("features", rows(d)) for d in ("2013-01-07", "2013-02-20"))  # type: ignore[arg-type]
    path = evidently.write(then, now, ["temp"], ["dest"], tmp_path / "drift.html")
    text = path.read_text()
    assert "temp" in text
    assert "dest" in text
