"""The pages that people read: whole, self-contained, and in step with what happened."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.adapters.monitoring import evidently
from include.domain.windows import parse_utc
from include.reports import timeline_page
from include.stages.monitoring import timeline
from include.stages.monitoring.timeline import Timeline
from tests.watching import ROWS, SPEC, WatchScenario, reversed_truth


class ParsedPage(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def scenario(tmp_path: Path) -> WatchScenario:
    scenario = WatchScenario(tmp_path)
    scenario.live(range(42, 50), land=reversed_truth)
    scenario.decide()
    return scenario


def built(scenario: WatchScenario) -> Timeline:
    built_timeline = timeline.build_timeline(SPEC, scenario.services)
    assert built_timeline is not None
    return built_timeline


def test_the_page_shows_performance_drift_and_the_request_and_loads_nothing(
    scenario: WatchScenario, tmp_path: Path
) -> None:
    text = timeline_page.write(built(scenario), tmp_path / "reports" / "watch.html").read_text()
    parsed = ParsedPage(text)
    assert parsed.links == []
    assert parsed.tags.count("rect") > 2 * 22
    assert parsed.tags.count("circle") >= 3 * 7 + 2 * 8
    assert text.count('stroke="#b3261e" stroke-width="2.5"><title>2013-02-25: logloss: logloss') == 3
    assert '<p class="decision yes"><b>A training was asked for</b>' in text
    assert "<td>train<td>logloss" in text
    assert '<td class="fire">fire<td>logloss' in text
    assert re.search(r"<title>d1: [\d.]+% in training, [\d.]+% now", text)


def test_after_a_retraining_the_page_says_whether_the_cause_has_gone(scenario: WatchScenario) -> None:
    scenario.promote(scenario.train("2", 8))
    for day in range(50, 58):
        scenario.land(day)
        scenario.serve(day, version="2")
    scenario.decide("watch-2")
    assert "With version 2 the cause has gone." in timeline_page.page(built(scenario))


def test_a_name_with_markup_in_it_stays_text(scenario: WatchScenario) -> None:
    assert "<script>" not in timeline_page.page(replace(built(scenario), model="<script>"))


@pytest.mark.filterwarnings("ignore")
def test_evidently_reports_the_newest_window_beside_like_ones_and_leaves_out_what_has_no_value(
    scenario: WatchScenario, tmp_path: Path
) -> None:
    def nameless(columns: dict[str, Any]) -> dict[str, Any]:
        return {**columns, "dest": pa.nulls(ROWS, pa.string())}

    before = timeline.drift_report_input(SPEC, scenario.services)
    assert before is not None
    assert before.categorical == ["dest"]
    scenario.land(50, nameless)
    compared = timeline.drift_report_input(SPEC, scenario.services)
    assert compared is not None
    assert (compared.window, compared.numeric, compared.categorical) == ("2013-02-26", ["temp"], [])
    assert {parse_utc(w).weekday() for w in compared.reference["window"].unique().to_pylist()} == {1}
    path = tmp_path / "drift.html"
    evidently.write(compared.reference, compared.newest, compared.numeric, compared.categorical, path)
    assert "temp" in path.read_text()
