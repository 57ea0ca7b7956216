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
class Bound:
    """A measure of the profile lies between `low` and `high`; `severity` as in the spec."""

    measure: str
    low: float | None
    high: float | None
    severity: str = "fail"


def bounds(spec: ModelSpec) -> list[Bound]:
    asked, columns = spec.validation, spec.columns
    return [
        Bound("rows", 1, None),
        Bound("volume", *asked.volume),
        Bound("label_shift", -asked.max_label_shift, asked.max_label_shift, "warn"),
        Bound("silence", 0, asked.max_silence, "warn"),
        *(
            Bound(
                f"nulls.{name}",
                0,
                asked.max_nulls_of.get(name, asked.max_nulls),
                "warn" if name in asked.warn_nulls_of else "fail",
            )
            for name in columns.features
        ),
        *(Bound(f"unseen.{name}", 0, asked.max_unseen, "warn") for name in columns.categorical),
    ]


class GreatExpectations:
    """`pages` is the folder for Data Docs, one site a run."""

    def __init__(self, spec: ModelSpec, pages: Path) -> None:
        self._spec, self._pages = spec, pages

    def validate(
        self, rows: Iterable[pa.Table], profiles: Sequence[Profile], run: str
    ) -> tuple[Mapping[str, Verdict], str]:
        """Raises UserMistake for an expectation of the spec that Great Expectations does not know or accept."""
        own = [_of_user(n, e) for n, e in enumerate(self._spec.validation.expectations)]
        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        checks: dict[str, list[Check]] = {p.window: [] for p in profiles}
        self._judge_profiles(context, profiles, checks)
        for number, piece in enumerate(rows if own else ()):
            self._judge_rows(context, f"rows {number}", piece.to_pandas(), own, checks)
        page = _publish(context, self._pages / run)
        return {name: Verdict(f"{self._spec.name} {name}", tuple(found)) for name, found in checks.items()}, page

    def _judge_profiles(self, context: Any, profiles: Sequence[Profile], checks: Mapping[str, list[Check]]) -> None:
        table = pd.DataFrame([{"window": p.window, **p.measures} for p in profiles])
        known = {b.measure: b for b in bounds(self._spec) if b.measure in table and table[b.measure].notna().any()}
        frame = table[["window", *known]]
        judged = _run(context, "windows", frame, [_expected(b) for b in known.values()], "BASIC")
        broken = [known[result.expectation_config.kwargs["column"]] for result in judged.results if not result.success]
        out = _windows_out(context, frame, broken) if broken else {}
        for measure, bound in known.items():
            for window, value in zip(table["window"], table[measure], strict=True):
                if not pd.isna(value):
                    checks[window].append(_check(bound, float(value), out=window in out.get(measure, ())))

    def _judge_rows(
        self, context: Any, name: str, rows: pd.DataFrame, own: Sequence[Any], checks: Mapping[str, list[Check]]
    ) -> None:
        """All rows once, for the page; and each window's by themselves, unless not one value is unexpected in all."""
        whole = _run(context, name, rows, own, "SUMMARY")
        by_window = {str(window): part for window, part in rows.groupby("window")}
        for window, part in by_window.items():
            for asked, expectation, result in zip(self._spec.validation.expectations, own, whole.results, strict=True):
                flawless = result.result.get("unexpected_count") == 0
                judged = result if flawless or len(by_window) == 1 else _validated(context, name, part, expectation)
                checks[window].append(_own_check(asked, judged))


def _of_user(number: int, asked: Expectation) -> Any:
    """The Great Expectations object. Raises UserMistake naming its place in the spec."""
    place = f"validation.expectations.{number}: {asked.expect}"
    try:
        kind = get_expectation_impl(asked.expect)
        return kind(**asked.arguments, severity=SEVERITIES[asked.severity])
    except GreatExpectationsError:
        raise UserMistake(f"{place}: Great Expectations has none of that name") from None
    except (TypeError, ValueError) as fault:
        raise UserMistake(f"{place}: {' '.join(str(fault).split())}") from None


def _expected(bound: Bound) -> Any:
    return ExpectColumnValuesToBeBetween(
        column=bound.measure, min_value=bound.low, max_value=bound.high, severity=SEVERITIES[bound.severity]
    )


def _windows_out(context: Any, frame: pd.DataFrame, broken: Sequence[Bound]) -> dict[str, set[str]]:
    """By measure the windows out of its bounds, which get a page; naming them takes twice as long as judging."""
    named = {"result_format": "COMPLETE", "unexpected_index_column_names": ["window"]}
    judged = _run(context, "windows out of bounds", frame, [_expected(b) for b in broken], named)
    return {r.expectation_config.kwargs["column"]: {row["window"] for row in r.result["unexpected_index_list"]}
            for r in judged.results}  # fmt: skip


def _run(context: Any, name: str, frame: pd.DataFrame, expectations: Sequence[Any], form: Any) -> Any:
    """Judge the frame, kept in the context for its Data Docs; `form` is Great Expectations' result format."""
    batches = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batches, suite=suite))
    return definition.run(batch_parameters={"dataframe": frame}, result_format=form)


def _validated(context: Any, name: str, frame: pd.DataFrame, expectation: Any) -> Any:
    batch = context.data_sources.get(name).get_asset(name).get_batch_definition(name).get_batch({"dataframe": frame})
    return batch.validate(expectation, result_format="BASIC")


def _publish(context: Any, folder: Path) -> str:
    """Data Docs of what this context ran; the URI of their first page."""
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    context.add_data_docs_site("local", {"class_name": "SiteBuilder", "store_backend": store,
                                         "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}})  # fmt: skip
    context.build_data_docs(["local"])  # a context has a site of its own in a folder that it forgets
    return (folder.resolve() / "index.html").as_uri()


def _check(bound: Bound, value: float, *, out: bool) -> Check:
    low, high = bound.low, bound.high
    limit = f"at least {low:g}" if high is None else f"{low:g} to {high:g}" if low else f"at most {high:g}"
    sentence = f"{bound.measure} is {value:.3g}, asked for {limit}"
    warned = out and bound.severity == "warn"
    broken = high if high is not None and value > high else low
    return Check(bound.measure, Outcome.FAIL if out and not warned else Outcome.PASS,
                 f"warning: {sentence}" if warned else sentence, value, broken)  # fmt: skip


def _own_check(asked: Expectation, result: Any) -> Check:
    column = asked.arguments.get("column", "rows")
    name = f"{asked.expect}.{column}"
    if raised := _raised(result.exception_info or {}):
        return Check(name, Outcome.ERROR, f"{name}: {raised}")
    found = result.result
    said = f"{found['unexpected_percent']:.3g}% of the values are not as expected" if (
        found.get("unexpected_percent") is not None) else f"observed {found.get('observed_value')}"  # fmt: skip
    if result.success:
        return Check(name, Outcome.PASS, f"{name}: {said}")
    if asked.severity == "warn":
        return Check(name, Outcome.PASS, f"warning: {name}: {said}")
    return Check(name, Outcome.FAIL, f"{name} ({dict(asked.arguments)}): {said}")


def _raised(told: Mapping[str, Any]) -> str | None:
    """What went wrong while judging: told flat, or once for each metric."""
    for each in (told, *(inner for inner in told.values() if isinstance(inner, Mapping))):
        if each.get("raised_exception"):
            return str(each.get("exception_message"))
    return None
