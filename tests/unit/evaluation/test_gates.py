import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from include.domain.evaluation.behaviour import Behaviour
from include.domain.evaluation.gate_settings import AgainstChampion, Bound, Gates, Metric
from include.domain.evaluation.gates import Evidence, Relation, judge, relate, slice_effects
from include.domain.evaluation.slices import Slices
from include.domain.statistics import mean
from include.domain.verdict import Check, Outcome, Verdict

ROWS = 8000
PASS, FAIL, INCONCLUSIVE, ERROR = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR
GATES = Gates(min_auc=0.6, baselines=("logistic",))


def evidence_of(noise: float = 0.3, rows: int = ROWS, **changes: Any) -> Evidence:
    """A champion and a baseline off the truth by 0.3 in logit, a challenger by `noise`."""
    random = np.random.default_rng(3)
    logit = random.normal(-1, 1, rows)
    labels = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    off = {"challenger": noise, "champion": 0.3, "logistic": 0.3}
    scores = {name: 1 / (1 + np.exp(-logit - random.normal(0, sd, rows))) for name, sd in off.items()}
    return replace(Evidence(labels, scores, measured={"score_gap": 1e-7}), **changes)


def check(verdict: Verdict, name: str) -> Check:
    return next(c for c in verdict.checks if c.name == name)


def without(evidence: Evidence, *names: str) -> Evidence:
    return replace(evidence, scores={n: s for n, s in evidence.scores.items() if n not in names})


def with_challenger(evidence: Evidence, scores: Any) -> Evidence:
    return replace(evidence, scores={**evidence.scores, "challenger": scores})


@pytest.mark.parametrize(
    ("interval", "relation"),
    [
        ((-0.3, -0.1), Relation.SUPERIOR),
        ((-0.3, 0.1), Relation.NOT_INFERIOR),
        ((0.05, 0.1), Relation.NOT_INFERIOR),
        ((0.1, 0.3), Relation.WORSE),
        ((-0.1, 0.3), Relation.UNDECIDED),
    ],
)
def test_relation_to_a_margin_of_0_2(interval: tuple[float, float], relation: Relation) -> None:
    assert relate(interval, 0.2) is relation


@pytest.mark.parametrize("metric", ["logloss", "auc"])
@pytest.mark.parametrize(
    ("noise", "relation", "outcome"), [(0.0, "superior", PASS), (0.3, "not inferior", PASS), (1.5, "worse", FAIL)]
)
def test_challenger_against_the_champion(metric: Any, noise: float, relation: str, outcome: Outcome) -> None:
    gates = replace(GATES, champion=AgainstChampion(metric=metric, margin=0.01))
    against_champion = check(judge(gates, evidence_of(noise), 1), "against champion")
    assert against_champion.outcome is outcome
    assert against_champion.sentence.startswith(f"{relation}: {metric} ")
    assert against_champion.bound == 0.01
    assert against_champion.interval is not None and against_champion.value is not None
    lower, upper = against_champion.interval
    assert lower <= against_champion.value <= upper


def test_a_thin_margin_on_few_rows_is_undecided() -> None:
    gates = replace(GATES, champion=AgainstChampion(margin=1e-5))
    assert check(judge(gates, evidence_of(), 1), "against champion").outcome is INCONCLUSIVE


def test_when_superiority_is_required_not_inferior_is_not_enough() -> None:
    gates = replace(GATES, champion=AgainstChampion(margin=0.01, require="superior"))
    assert check(judge(gates, evidence_of(0.3), 1), "against champion").outcome is INCONCLUSIVE
    assert judge(gates, evidence_of(0.0), 1).outcome is PASS


def test_without_a_champion_bounds_and_baselines_decide() -> None:
    first = without(evidence_of(0.3), "champion")
    assert judge(GATES, first, 1).outcome is PASS
    assert judge(replace(GATES, min_auc=0.9), first, 1).outcome is FAIL
    assert check(judge(GATES, without(evidence_of(1.5), "champion"), 1), "against logistic").outcome is FAIL


def test_too_few_positives_are_inconclusive_not_a_pass() -> None:
    verdict = judge(GATES, evidence_of(0.0, rows=150), 1)
    assert verdict.outcome is INCONCLUSIVE
    assert "at least 100 of each are needed" in check(verdict, "against champion").sentence
    assert check(verdict, "auc").outcome is INCONCLUSIVE


def test_what_is_configured_and_missing_fails_closed() -> None:
    own_metrics = {"brier": Metric("sklearn.metrics:brier_score_loss", max=0.2)}
    gates = replace(GATES, max_p99_ms=20, bounds={"recall": Bound(min=0.3, max=0.9)}, metrics=own_metrics)
    verdict = judge(gates, replace(without(evidence_of(), "logistic"), measured={}), 1)
    assert check(verdict, "brier").sentence == "brier was not measured; it must be at most 0.2"
    assert check(verdict, "score_gap").outcome is FAIL
    assert check(verdict, "p99_ms").sentence == "p99_ms was not measured; it must be at most 20"
    assert check(verdict, "recall").sentence == "recall was not measured; it must be at least 0.3 and at most 0.9"
    assert [c.name for c in verdict.checks if c.outcome is FAIL] == [
        "brier",
        "against logistic",
        "p99_ms",
        "score_gap",
        "recall",
    ]


@pytest.mark.parametrize(("p99", "outcome"), [(19.0, PASS), (21.0, FAIL), (float("nan"), FAIL)])
def test_measured_bounds(p99: float, outcome: Outcome) -> None:
    verdict = judge(replace(GATES, max_p99_ms=20), evidence_of(measured={"p99_ms": p99, "score_gap": 0.0}), 1)
    assert check(verdict, "p99_ms").outcome is outcome


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda s: np.where(np.arange(ROWS) < 3, np.nan, s), "3 of 8,000 scores are not numbers"),
        (lambda s: np.full(ROWS, 0.2), "every score is 0.2"),
        (lambda s: s * 2, "not 0 to 1"),
    ],
)
def test_broken_scores_fail(spoil: Any, reason: str) -> None:
    evidence = evidence_of()
    verdict = judge(GATES, with_challenger(evidence, spoil(np.asarray(evidence.scores["challenger"]))), 1)
    assert verdict.outcome is FAIL
    assert reason in verdict.reasons[0]


def test_a_champion_with_broken_scores_is_an_error() -> None:
    evidence = evidence_of()
    broken = replace(evidence, scores={**evidence.scores, "champion": np.full(ROWS, np.nan)})
    assert judge(GATES, broken, 1).outcome is ERROR


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence([], {"challenger": []}),
        without(evidence_of(), "challenger"),
        with_challenger(evidence_of(), np.full(7, 0.5)),
        replace(evidence_of(), labels=np.full(ROWS, 2.0)),
    ],
    ids=["no rows", "no challenger", "other rows", "other labels"],
)
def test_unusable_evidence_is_an_error(evidence: Evidence) -> None:
    assert judge(GATES, evidence, 1).outcome is ERROR


def spoiled_on_sundays() -> Evidence:
    """Equal to the champion but on one day of seven."""
    evidence = evidence_of()
    days = np.array(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], dtype=object)[np.arange(ROWS) % 7]
    champion = np.asarray(evidence.scores["champion"])
    scores = np.where(days == "sun", 1 - champion, champion)
    return replace(with_challenger(evidence, scores), slices={"day": days, "hour": np.arange(ROWS) / ROWS})


def test_a_bad_slice_is_found_and_named() -> None:
    gates = replace(GATES, slices=Slices(by=("day", "hour")), champion=AgainstChampion(margin=1))
    verdict = judge(gates, spoiled_on_sundays(), 1)
    assert "day=sun (1,142 rows)" in check(verdict, "slices of day").sentence
    assert check(verdict, "slices of day").outcome is FAIL
    worst, *others = slice_effects(gates, spoiled_on_sundays())
    assert (worst.column, worst.value) == ("day", "sun")
    assert len(others) == 6 + 4  # the other days, the quarters of the hours
    assert all(effect.p == 1 for effect in others if effect.column == "day")


def test_a_missing_slice_column_is_named_and_small_slices_are_not_judged() -> None:
    gates = replace(GATES, slices=Slices(by=("airport", "day"), min_rows=5000))
    verdict = judge(gates, spoiled_on_sundays(), 1)
    assert check(verdict, "slices of airport").outcome is FAIL
    assert check(verdict, "slices of airport").sentence.startswith("airport: the column to slice by is not")
    assert check(verdict, "slices of day").outcome is INCONCLUSIVE
    assert "mon (1,143)" in check(verdict, "slices of day").sentence


def test_slices_too_small_to_judge_are_named_beside_those_that_were() -> None:
    airport = np.array(["JFK", "LGA", "EWR"], dtype=object)[
        (np.arange(ROWS) > 100).astype(int) + (np.arange(ROWS) > 150)
    ]
    evidence = evidence_of(slices={"airport": airport}, values_without_rows={"airport": ["SWF"]})
    gates = replace(GATES, slices=Slices(by=("airport",)))
    sentence = check(judge(gates, evidence, 1), "slices of airport").sentence
    assert sentence.endswith("not judged, with fewer than 500 rows: JFK (101), LGA (50), SWF (0)")


def test_a_metric_of_the_users_own_is_held_to_its_limits() -> None:
    gates = replace(GATES, metrics={"brier": Metric("sklearn.metrics:brier_score_loss", max=0.2)})
    good, bad = (judge(gates, evidence_of(own_metrics={"brier": (v, (v - 0.01, v + 0.01))}), 1) for v in (0.19, 0.21))
    assert check(good, "brier").outcome is PASS
    assert check(bad, "brier").sentence == "brier is 0.21 (0.2 to 0.22); it must be at most 0.2"


def test_equal_models_are_rarely_called_worse_when_the_rows_of_a_day_stand_or_fall_together() -> None:
    """On each day the challenger is as likely to be lucky as not; taken row by row it would be called worse at every fourth."""
    days, runs = 14, 200
    called_worse = {"by row": 0, "by day": 0}
    for seed in range(runs):
        random = np.random.default_rng(seed)
        day = np.repeat(np.arange(days), 200)
        effect = mean(0.02 * random.normal(size=days)[day] + 0.1 * random.normal(size=len(day)))
        called_worse["by row"] += relate(effect.interval(0.95), 0.002) is Relation.WORSE
        called_worse["by day"] += relate(effect.interval(0.95, day), 0.002) is Relation.WORSE
    assert called_worse["by day"] <= 0.05 * runs < 0.2 * runs < called_worse["by row"]


def test_missing_values_are_a_slice_of_their_own() -> None:
    wind = np.where(np.arange(ROWS) % 2, np.nan, np.arange(ROWS))
    gates = replace(GATES, slices=Slices(by=("wind", "gate")))
    gate = np.array([None, "A"], dtype=object)[np.arange(ROWS) % 2]
    effects = slice_effects(gates, evidence_of(slices={"wind": wind, "gate": gate}))
    rows = {(effect.column, effect.value): effect.rows for effect in effects}
    assert rows["wind", "missing"] == rows["gate", "missing"] == rows["gate", "A"] == ROWS / 2
    assert len(rows) == 7


BEHAVIOURS = [
    (Behaviour("delay", "rises", add=60.0), 0.1, PASS),
    (Behaviour("delay", "falls", add=60.0), 0.1, FAIL),
    (Behaviour("seat", "stays", value="1A"), 0.005, PASS),
    (Behaviour("seat", "stays", value="1A"), 0.1, FAIL),
]


@pytest.mark.parametrize(("behaviour", "difference", "outcome"), BEHAVIOURS)
def test_behaviour(behaviour: Behaviour, difference: float, outcome: Outcome) -> None:
    evidence = evidence_of()
    scores = np.asarray(evidence.scores["challenger"]) + difference
    gates = replace(GATES, behaviour=(behaviour,), champion=AgainstChampion(margin=1))
    changed = {behaviour.name: scores}
    assert check(judge(gates, replace(evidence, changed_scores=changed), 1), behaviour.name).outcome is outcome
    assert check(judge(gates, evidence, 1), behaviour.name).outcome is FAIL  # nothing was scored


def test_behaviour_changes_a_column() -> None:
    assert Behaviour("delay", "rises", add=60.0).change([1.0, None]) == [61.0, None]
    assert Behaviour("seat", "stays", value="1A").change(["2B", None]) == ["1A", "1A"]


def test_the_same_evidence_gives_the_same_verdict_which_survives_json() -> None:
    verdict = judge(GATES, evidence_of(), 1)
    assert verdict == judge(GATES, evidence_of(), 1)
    assert msgspec.convert(json.loads(json.dumps(verdict.to_dict())), Verdict) == verdict


def test_the_section_as_yaml_gives_it() -> None:
    gates = TypeAdapter(Gates).validate_python(
        {"bounds": {"recall": {"min": 0.1}}, "behaviour": [{"column": "delay", "expect": "rises", "add": 60}]}
    )
    assert gates.bounds["recall"] == Bound(min=0.1)
    assert gates.behaviour[0].name == "delay+60 rises"
    with pytest.raises(ValidationError):
        TypeAdapter(Gates).validate_python({"champion": {"metric": "accuracy"}})
