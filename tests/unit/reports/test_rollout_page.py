"""The page of a rollout."""

from xml.etree import ElementTree

from tests.unit.rollout.scenario import RolloutScenario


def test_the_evidence_of_a_rollout_is_attached_to_the_run_that_made_the_model(scenario: RolloutScenario) -> None:
    scenario.ledger.clock = lambda: scenario.now
    scenario.begin()
    scenario.pass_all()
    scenario.promote()
    attached = scenario.registry.attached["m2/rollout/run-1"]
    assert attached == ["rollout.html", "error_rate.svg", "slow_share.svg"]
    page = (scenario.folder / "toy-run-1" / "rollout.html").read_text()
    traffic = "<td>50 %</td><td>canary</td><td>20,000</td><td>0</td><td>0</td>"
    for text in ("began (version 2)", "go on: 10 %", "promoted (version 2)", traffic, "<svg"):
        assert text in page
    plot = ElementTree.parse(scenario.folder / "toy-run-1" / "error_rate.svg")
    assert "50 %" in "".join(plot.getroot().itertext())
