"""The model card says on one page what a person needs to decide."""

from xml.etree import ElementTree

import numpy as np

from include.domain.verdict import Outcome
from include.reports import model_card
from include.stages.evaluation import evaluation
from tests.unit.evaluation.candidates import SERVED, SPEC, Candidates
from tests.unit.toy import toy

CAUSE = "logloss: .742 where the test windows had .454"


def test_the_card_is_one_page_with_its_plots_inside(candidates: Candidates) -> None:
    spec = toy(gates={"baselines": ["logistic"], "slices": {"by": ["c"]}}, description="Is y <really> true?")
    reference = candidates.evaluate(spec, champion=candidates.champion)
    result = evaluation.judge(spec, reference, {})
    pages = {page.name: page.read_text() for page in model_card.write(reference, result.record, CAUSE)}
    assert set(pages) == {"card.md", "card.html", "roc.svg", "calibration.svg", "loss.svg", "slices.svg"}
    assert pages["card.html"].count("<svg") == 4
    assert "Is y &lt;really&gt; true?" in pages["card.html"]
    assert "http" not in pages["card.html"].replace("http://www.w3.org/2000/svg", ""), "loads nothing from elsewhere"
    for text in (CAUSE, "champion (version 1)", "2026-01-02", "Limits:", "against logistic", "| c=a | "):
        assert text in pages["card.md"]
    assert model_card.markdown_path(reference).read_text() == pages["card.md"]
    for name in ("roc.svg", "calibration.svg", "loss.svg", "slices.svg"):
        ElementTree.fromstring(pages[name])


def test_the_card_of_a_first_release_says_that_there_is_no_champion(candidates: Candidates) -> None:
    reference = candidates.evaluate()
    pages = model_card.write(reference, evaluation.judge(SPEC, reference, SERVED).record, CAUSE)
    assert "no champion yet" in pages[0].read_text()
    assert "slices.svg" not in {page.name for page in pages}


def test_scores_that_are_no_numbers_fail_and_still_have_a_card(candidates: Candidates) -> None:
    candidates.scorer.models[candidates.models["challenger"].uri] = lambda columns: np.full(len(columns["x"]), np.nan)
    reference = candidates.evaluate(champion=candidates.champion)
    result = evaluation.judge(SPEC, reference, SERVED)
    assert result.verdict.outcome is Outcome.FAIL
    assert "are not numbers" in model_card.write(reference, result.record, CAUSE)[0].read_text()
