"""A verdict is its worst check, and no evidence is never a pass."""

import json

import msgspec
import pytest

from include.domain.verdict import Check, Outcome, Verdict, merge

PASS, FAIL, INCONCLUSIVE, ERROR = (Check(o, o, f"it is {o}") for o in Outcome)


@pytest.mark.parametrize(
    ("checks", "outcome"),
    [
        ((PASS,), Outcome.PASS),
        ((PASS, INCONCLUSIVE), Outcome.INCONCLUSIVE),
        ((INCONCLUSIVE, FAIL, PASS), Outcome.FAIL),
        ((FAIL, ERROR), Outcome.ERROR),
        ((), Outcome.INCONCLUSIVE),
    ],
)
def test_the_worst_check_decides(checks: tuple[Check, ...], outcome: Outcome) -> None:
    assert Verdict("x", checks).outcome is outcome


def test_the_reasons_are_the_sentences_that_did_not_pass() -> None:
    assert Verdict("x", (PASS, FAIL)).reasons == ["it is fail"]


def test_a_verdict_survives_its_file() -> None:
    verdict = Verdict("auc", (Check("min_auc", Outcome.FAIL, "0.6 < 0.7", 0.6, 0.7, (0.58, 0.62)), PASS))
    assert msgspec.convert(json.loads(json.dumps(verdict.to_dict())), Verdict) == verdict


def test_merging_keeps_every_check() -> None:
    both = merge("both", [Verdict("a", (PASS,)), Verdict("b", (FAIL,))])
    assert (both.outcome, both.checks) == (Outcome.FAIL, (PASS, FAIL))
