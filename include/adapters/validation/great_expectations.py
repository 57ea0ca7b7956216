"""Validator by Great Expectations: a suite built from the spec, judged over many windows in one run, with Data Docs.

The spec's own bounds are expectations on a table of profiles, one row a window, so that ninety windows take as long as one
and each value that is out of bounds names its window. The user's expectations look at each window's rows.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
import pyarrow as pa
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.core.expect_column_values_to_be_between import (
    ExpectColumnValuesToBeBetween,
)
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.registry import get_expectation_impl

from include.domain.errors import UserMistake
from include.domain.verdict import Check, Outcome, Verdict
from include.ports.validation import Profile
from include.spec.data import Expectation
from include.spec.model_spec import ModelSpec

SEVERITIES = {"fail": FailureSeverity.CRITICAL, "warn": FailureSeverity.WARNING}


@dataclass(frozen=True)
class ProfileBound:
    """The limits between which a measure of the profile must lie; `severity` is as in the spec."""

    measure: str
    low: float | None
    high: float | None
    severity: str = "fail"


def bounds(spec: ModelSpec) -> list[ProfileBound]:
    """Return the limits that the spec's `validation` section sets for the profile of a window."""
    rules, columns = spec.validation, spec.columns
    nulls = [
        ProfileBound(
            f"nulls.{name}",
            0,
            rules.max_nulls_of.get(name, rules.max_nulls),
            "warn" if name in rules.warn_nulls_of else "fail",
        )
        for name in columns.features
    ]
    return [
        ProfileBound("rows", 1, None),
        ProfileBound("volume", *rules.volume),
        ProfileBound("label_shift", -rules.max_label_shift, rules.max_label_shift, "warn"),
        ProfileBound("silence", 0, rules.max_silence, "warn"),
        *nulls,
        *(ProfileBound(f"unseen.{name}", 0, rules.max_unseen, "warn") for name in columns.categorical),
    ]


class GreatExpectations:
    """The validator that judges with Great Expectations; `pages` is the folder for its Data Docs, one site a run."""

    def __init__(self, spec: ModelSpec, pages: Path) -> None:
        self._spec, self._pages = spec, pages

    def validate(
        self, rows: Iterable[pa.Table], profiles: Sequence[Profile], run: str
    ) -> tuple[Mapping[str, Verdict], str]:
        """Return the verdict on each window, and the URI of the page that shows it.

        Raises UserMistake for an expectation of the spec that Great Expectations does not know or accept.
        """
        own = [_of_user(n, e) for n, e in enumerate(self._spec.validation.expectations)]
        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        checks: dict[str, list[Check]] = {p.window: [] for p in profiles}
        self._judge_profiles(context, profiles, checks)
        for number, piece in enumerate(rows if own else ()):
            self._judge_rows(context, f"rows {number}", piece.to_pandas(), own, checks)
        page = _publish(context, self._pages / run)
        verdicts = {name: Verdict(f"{self._spec.name} {name}", tuple(each)) for name, each in checks.items()}
        return verdicts, page

    def _judge_profiles(self, context: Any, profiles: Sequence[Profile], checks: Mapping[str, list[Check]]) -> None:
        table = pd.DataFrame([{"window": p.window, **p.measures} for p in profiles])
        measured = {b.measure: b for b in bounds(self._spec) if b.measure in table and table[b.measure].notna().any()}
        frame = table[["window", *measured]]
        expectations = [_expectation(bound) for bound in measured.values()]
        judged = _run(context, "windows", frame, expectations, "BASIC")
        broken = [measured[r.expectation_config.kwargs["column"]] for r in judged.results if not r.success]
        outside = _windows_outside(context, frame, broken) if broken else {}
        for measure, bound in measured.items():
            for window, value in zip(table["window"], table[measure], strict=True):
                if not pd.isna(value):
                    checks[window].append(_check(bound, float(value), outside=window in outside.get(measure, ())))

    def _judge_rows(
        self, context: Any, name: str, rows: pd.DataFrame, own: Sequence[Any], checks: Mapping[str, list[Check]]
    ) -> None:
        """Judge all rows once, for the page, and each window's rows alone unless no value of all is unexpected."""
        whole = _run(context, name, rows, own, "SUMMARY")
        by_window = {str(window): part for window, part in rows.groupby("window")}
        for window, part in by_window.items():
            for setting, expectation, result in zip(
                self._spec.validation.expectations, own, whole.results, strict=True
            ):
                flawless = result.result.get("unexpected_count") == 0
                judged = result if flawless or len(by_window) == 1 else _validated(context, name, part, expectation)
                checks[window].append(_own_check(setting, judged))


def _of_user(number: int, setting: Expectation) -> Any:
    """Return the Great Expectations object. Raises UserMistake naming its place in the spec."""
    place = f"validation.expectations.{number}: {setting.expect}"
    try:
        implementation = get_expectation_impl(setting.expect)
        return implementation(**setting.arguments, severity=SEVERITIES[setting.severity])
    except GreatExpectationsError:
        raise UserMistake(f"{place}: Great Expectations has none of that name") from None
    except (TypeError, ValueError) as error:
        raise UserMistake(f"{place}: {' '.join(str(error).split())}") from None


def _expectation(bound: ProfileBound) -> Any:
    return ExpectColumnValuesToBeBetween(
        column=bound.measure, min_value=bound.low, max_value=bound.high, severity=SEVERITIES[bound.severity]
    )


def _windows_outside(context: Any, frame: pd.DataFrame, broken: Sequence[ProfileBound]) -> dict[str, set[str]]:
    """Return by measure the windows out of its bounds, which get a page; naming them takes twice as long as judging."""
    named = {"result_format": "COMPLETE", "unexpected_index_column_names": ["window"]}
    judged = _run(context, "windows out of bounds", frame, [_expectation(bound) for bound in broken], named)
    return {
        result.expectation_config.kwargs["column"]: {row["window"] for row in result.result["unexpected_index_list"]}
        for result in judged.results
    }


def _run(context: Any, name: str, frame: pd.DataFrame, expectations: Sequence[Any], form: Any) -> Any:
    """Judge the frame, which stays in the context for its Data Docs; `form` is Great Expectations' result format."""
    batches = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batches, suite=suite))
    return definition.run(batch_parameters={"dataframe": frame}, result_format=form)


def _validated(context: Any, name: str, frame: pd.DataFrame, expectation: Any) -> Any:
    batch = context.data_sources.get(name).get_asset(name).get_batch_definition(name).get_batch({"dataframe": frame})
    return batch.validate(expectation, result_format="BASIC")


def _publish(context: Any, folder: Path) -> str:
    """Write Data Docs of what this context ran, and return the URI of their first page."""
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site = {"class_name": "SiteBuilder", "store_backend": store, "site_index_builder": index}
    context.add_data_docs_site("local", site)
    context.build_data_docs(["local"])  # a context has a site of its own in a folder that it forgets
    return (folder.resolve() / "index.html").as_uri()


def _check(bound: ProfileBound, value: float, *, outside: bool) -> Check:
    low, high = bound.low, bound.high
    limit = f"at least {low:g}" if high is None else f"{low:g} to {high:g}" if low else f"at most {high:g}"
    sentence = f"{bound.measure} is {value:.3g}, asked for {limit}"
    broken = high if high is not None and value > high else low
    if outside and bound.severity == "warn":
        return Check(bound.measure, Outcome.PASS, f"warning: {sentence}", value, broken)
    return Check(bound.measure, Outcome.FAIL if outside else Outcome.PASS, sentence, value, broken)


def _own_check(setting: Expectation, result: Any) -> Check:
    name = f"{setting.expect}.{setting.arguments.get('column', 'rows')}"
    if error := _error(result.exception_info or {}):
        return Check(name, Outcome.ERROR, f"{name}: {error}")
    percent = result.result.get("unexpected_percent")
    if percent is None:
        sentence = f"observed {result.result.get('observed_value')}"
    else:
        sentence = f"{percent:.3g}% of the values are not as expected"
    if result.success:
        return Check(name, Outcome.PASS, f"{name}: {sentence}")
    if setting.severity == "warn":
        return Check(name, Outcome.PASS, f"warning: {name}: {sentence}")
    return Check(name, Outcome.FAIL, f"{name} ({dict(setting.arguments)}): {sentence}")


def _error(info: Mapping[str, Any]) -> str | None:
    """Return the error of a judgement; Great Expectations reports it flat, or once for each metric."""
    for each in (info, *(inner for inner in info.values() if isinstance(inner, Mapping))):
        if each.get("raised_exception"):
            return str(each.get("exception_message"))
    return None
