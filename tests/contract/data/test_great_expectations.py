"""The validator by Great Expectations: each window judged by itself, in one run, with pages for people."""

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pyarrow as pa
import pytest

from include.domain.errors import UserMistake
from include.domain.verdict import Outcome, Verdict
from include.ports.validation import Profile
from tests.unit.toy import toy

pytestmark = pytest.mark.filterwarnings("ignore")  # of Great Expectations' own making


def judge(tmp_path: Path, profiles: list[Profile], rows: pa.Table | None = None, **sections: Any) -> dict[str, Verdict]:
    from include.adapters.validation.great_expectations import GreatExpectations

    empty = pa.table({"x": [1.0] * len(profiles), "window": [p.window for p in profiles]})
    verdicts, page = GreatExpectations(toy(**sections), tmp_path / "pages").validate([rows or empty], profiles, "run 1")
    assert Path(urlparse(page).path.replace("%20", " ")).is_file()
    return dict(verdicts)


def test_each_window_out_of_bounds_fails_by_itself_with_its_numbers(tmp_path: Path) -> None:
    verdicts = judge(
        tmp_path,
        [
            Profile("a", {"rows": 10.0, "volume": None, "nulls.x": 0.1}),
            Profile("b", {"rows": 10.0, "volume": 1.1, "nulls.x": 0.9}),
            Profile("c", {"rows": 0.0, "volume": 0.1, "nulls.x": 0.0}),
        ],
    )
    assert [v.outcome for v in verdicts.values()] == [Outcome.PASS, Outcome.FAIL, Outcome.FAIL]
    assert verdicts["b"].reasons == ["nulls.x is 0.9, asked for at most 0.5"]
    assert verdicts["c"].reasons == ["rows is 0, asked for at least 1", "volume is 0.1, asked for 0.3 to 3"]
    assert {c.name: c.value for c in verdicts["a"].checks} == {"rows": 10, "nulls.x": 0.1}


def test_a_bound_that_only_warns_passes_and_says_so(tmp_path: Path) -> None:
    verdict = judge(tmp_path, [Profile("a", {"rows": 1.0, "label_shift": 0.6})])["a"]
    assert verdict.outcome is Outcome.PASS
    assert verdict.checks[1].sentence == "warning: label_shift is 0.6, asked for -0.3 to 0.3"


def test_missing_values_of_a_column_that_may_be_missing_only_warn(tmp_path: Path) -> None:
    measured = [Profile("a", {"rows": 1.0, "nulls.x": 1.0, "nulls.c": 0.0})]
    assert judge(tmp_path / "strict", measured)["a"].outcome is Outcome.FAIL
    verdict = judge(tmp_path, measured, validation={"warn_nulls_of": ["x"]})["a"]
    assert verdict.outcome is Outcome.PASS
    assert "warning: nulls.x is 1, asked for at most 0.5" in [c.sentence for c in verdict.checks]


def test_the_users_expectations_judge_each_windows_rows(tmp_path: Path) -> None:
    expectations = [
        {"expect": "expect_column_values_to_be_between", "arguments": {"column": "x", "min_value": 0}},
        {
            "expect": "expect_column_mean_to_be_between",
            "arguments": {"column": "x", "max_value": 5},
            "severity": "warn",
        },
    ]
    rows = pa.table({"x": [1.0, 2.0, -3.0, 9.0], "window": ["a", "a", "b", "c"]})
    profiles = [Profile(w, {"rows": 1.0}) for w in "abc"]
    verdicts = judge(tmp_path, profiles, rows, validation={"expectations": expectations})
    assert [v.outcome for v in verdicts.values()] == [Outcome.PASS, Outcome.FAIL, Outcome.PASS]
    assert "100% of the values are not as expected" in verdicts["b"].reasons[0]
    assert verdicts["c"].checks[-1].sentence == "warning: expect_column_mean_to_be_between.x: observed 9.0"


@pytest.mark.parametrize(
    ("expectation", "words"),
    [
        ({"expect": "expect_miracles"}, "expectations.0: expect_miracles: Great Expectations has none of that name"),
        ({"expect": "expect_column_values_to_be_between", "arguments": {"colum": "x"}}, "expectations.0: .*colum"),
    ],
)
def test_an_expectation_that_cannot_be_is_named_by_its_place(
    tmp_path: Path, expectation: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserMistake, match=words):
        judge(tmp_path, [Profile("a", {"rows": 1.0})], validation={"expectations": [expectation]})


def test_an_expectation_on_a_column_that_is_not_there_is_an_error_not_a_pass(tmp_path: Path) -> None:
    expectation = {"expect": "expect_column_values_to_not_be_null", "arguments": {"column": "gone"}}
    verdict = judge(tmp_path, [Profile("a", {"rows": 1.0})], validation={"expectations": [expectation]})["a"]
    assert verdict.outcome is Outcome.ERROR
