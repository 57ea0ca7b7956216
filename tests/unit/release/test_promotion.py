"""A model's way through the registry leaves its reasons in tags and in the ledger."""

from include.domain.events import ChallengerJudged, VersionRegistered
from include.reports import model_card
from include.stages.evaluation import evaluation
from include.stages.release import promotion
from include.stages.release.promotion import ReleaseServices
from tests.fakes import FakeLedger, FakeRegistry
from tests.unit.evaluation.candidates import SERVED, SPEC, START, Candidates, blunt, sharp

CAUSE = "logloss: .742 where the test windows had .454"


def test_registering_twice_gives_one_version_with_its_story(candidates: Candidates) -> None:
    registry, ledger = FakeRegistry(), FakeLedger()
    reference = candidates.evaluate(champion=candidates.champion)
    result = evaluation.judge(SPEC, reference, SERVED)
    first = promotion.register("toy", reference, result, ReleaseServices(registry, ledger))
    again = promotion.register("toy", reference, result, ReleaseServices(registry, ledger))
    assert first.number == again.number == "1"
    assert len(ledger.read("toy", VersionRegistered)) == 1
    assert (again.tags["verdict"], again.tags["run"], again.tags["family"]) == ("pass", "r1", "dcn")
    assert " to " in again.tags["test_auc"]


def test_the_evidence_is_attached_whatever_the_verdict(candidates: Candidates) -> None:
    registry, ledger = FakeRegistry(), FakeLedger()
    candidates.scorer.models[candidates.models["challenger"].uri] = blunt
    candidates.scorer.models[candidates.champion.artifact.uri] = sharp
    reference = candidates.evaluate(champion=candidates.champion)
    result = evaluation.judge(SPEC, reference, SERVED)
    assert result.verdict.reasons
    for _ in range(2):
        pages = model_card.write(reference, result.record, CAUSE)
        description = model_card.markdown_path(reference).read_text()
        promotion.publish("toy", reference, result, pages, description, ReleaseServices(registry, ledger))
    assert {"evaluation.json", "verdict.json", "card.html"} <= set(registry.attached["m1/evaluation"])
    (event,) = ledger.read("toy", ChallengerJudged)
    assert list(event.reasons) == result.verdict.reasons
    described = registry.described["m1"]
    assert (described["verdict"], described["reasons"]) == ("fail", "\n".join(result.verdict.reasons))
    assert described["text"].startswith("# toy, dcn of run r1: fail")


def test_a_rejected_version_keeps_its_reasons() -> None:
    registry, ledger = FakeRegistry(), FakeLedger()
    registry.add("toy", 1)
    promotion.reject("toy", "1", ["too dear"], "ada", START, ReleaseServices(registry, ledger))
    tags = registry.version("toy", "1").tags
    assert (tags["approval"], tags["rejected_by"], tags["reasons"]) == ("rejected", "ada", "too dear")
