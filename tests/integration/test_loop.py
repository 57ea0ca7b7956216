"""The whole loop on the real stack: what `make demo` does, asserted through Airflow's, MLflow's and the gateway's APIs."""

import html
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from rich.console import Console

from include.domain.events import ActionRequested, ChallengerJudged, ChampionPromoted, RetrainingDecided, StepAnalysed
from include.local import demo, flights, processes, stack
from include.local.rest import Airflow
from include.ports.ledger import E
from include.ports.traffic import Routes
from include.settings import Settings, from_env
from include.wiring import Parts

pytestmark = pytest.mark.timeout(1800)
MODEL = demo.MODEL


@dataclass
class DemoRun:
    """A demo that has ended: the stack is still up; `printed` is what a person saw."""

    settings: Settings
    airflow: Airflow
    printed: str

    def runs(self, dag_kind: str) -> list[dict[str, Any]]:
        """Return the runs of that kind of DAG, oldest first."""
        return self.airflow.runs(f"{MODEL}.{dag_kind}")[::-1]

    def states(self, dag_kind: str, run: dict[str, Any]) -> dict[str, str | None]:
        """Return the state of each task of the run."""
        return {t.task: t.state for t in self.airflow.tasks(f"{MODEL}.{dag_kind}", run["dag_run_id"])}

    def ledger(self, event_type: type[E]) -> list[E]:
        return Parts(self.settings).ledger().read(MODEL, event_type)

    def experiments(self) -> list[str]:
        query = {"max_results": 100}
        answer = httpx.get(f"{self.settings.mlflow_url}/api/2.0/mlflow/experiments/search", params=query)
        return [row["experiment_id"] for row in answer.json()["experiments"]]

    def alias(self, name: str) -> str | None:
        query = {"name": MODEL, "alias": name}
        answer = httpx.get(f"{self.settings.mlflow_url}/api/2.0/mlflow/registered-models/alias", params=query)
        return str(answer.json()["model_version"]["version"]) if answer.status_code == 200 else None


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    home = tmp_path_factory.mktemp("perennial")
    out = io.StringIO()
    settings = from_env({"PERENNIAL_HOME": str(home)})
    try:
        demo.play(settings, Console(file=out, width=140), spoiled=True)
        settings = stack.remembered(settings)
        with Airflow(settings.airflow_url, stack.password(settings)) as airflow:
            yield DemoRun(settings, airflow, out.getvalue())
    except BaseException:
        print(out.getvalue())
        raise
    finally:
        stack.down(settings)
    assert processes.marked(home) == []


def test_windows_land_and_every_row_is_accounted_for(demo_run: DemoRun) -> None:
    for run in demo_run.runs("data"):
        assert set(demo_run.states("data", run).values()) == {"success"}
        landed = demo_run.airflow.xcom(f"{MODEL}.data", run["dag_run_id"], "land")
        assert landed["read"] == landed["landed"] + landed["quarantined"] + landed["duplicates"]
        assert landed["windows"] >= 90


def test_the_first_model_passes_its_gates_and_is_released_without_a_champion_to_compare_with(demo_run: DemoRun) -> None:
    first = demo_run.runs("train")[0]
    assert set(demo_run.states("train", first).values()) == {"success"}
    states = demo_run.states("rollout", demo_run.runs("rollout")[0])
    assert (states["shadow"], states["canary_10"]) == ("skipped", "skipped")
    assert (states["canary_100"], states["promote"]) == ("success", "success")


def test_the_watch_starts_the_second_training_and_says_why(demo_run: DemoRun) -> None:
    starts = [decision for decision in demo_run.ledger(RetrainingDecided) if decision.start]
    assert len(starts) == 1
    assert starts[0].cause
    first, second, _ = demo_run.runs("train")
    assert first["run_type"] == "manual"
    assert second["run_type"] == "asset_triggered"
    reason = demo_run.airflow.xcom(f"{MODEL}.train", second["dag_run_id"], "validate")["cause"]
    assert reason == starts[0].sentence


def test_the_servers_used_the_features_that_training_computes(demo_run: DemoRun) -> None:
    """Aggregates of the past among them, which the servers looked up while the flights' delays became known."""
    decision = next(decision for decision in demo_run.ledger(RetrainingDecided) if decision.start)
    skew = next(signal for signal in decision.signals if signal.name == "skew")
    assert (skew.state, skew.value) == ("ok", 0), skew.sentence


def test_the_second_model_goes_through_shadow_and_canary(demo_run: DemoRun) -> None:
    states = demo_run.states("train", demo_run.runs("train")[1])
    assert states["gate"] == "success", [event.reasons for event in demo_run.ledger(ChallengerJudged)]
    rollout = demo_run.states("rollout", demo_run.runs("rollout")[1])
    assert (rollout["shadow"], rollout["canary_10"], rollout["canary_100"]) == ("success", "success", "success")
    analyses = [event for event in demo_run.ledger(StepAnalysed) if event.version == "2"]
    counts = [event for event in analyses if event.step == "10 %"][-1].counts
    share = counts["canary"].requests / (counts["canary"].requests + counts["stable"].requests)
    assert 0.05 < share < 0.15
    assert demo_run.alias("champion") == "2"


def test_a_spoiled_challenger_is_rejected_with_its_reasons_wherever_a_person_looks(demo_run: DemoRun) -> None:
    run = demo_run.runs("train")[2]
    states = demo_run.states("train", run)
    assert (states["train"], states["gate"], states["register"]) == ("success", "failed", "upstream_failed")
    reasons = demo_run.ledger(ChallengerJudged)[-1].reasons
    assert any("worse: logloss" in reason and "the champion's" in reason for reason in reasons)
    logs = demo_run.airflow.get(
        f"/dags/{MODEL}.train/dagRuns/{run['dag_run_id']}/taskInstances/gate/logs/1", full_content=True
    )
    assert reasons[0] in json.dumps(logs, ensure_ascii=False)
    failed = httpx.post(
        f"{demo_run.settings.mlflow_url}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": demo_run.experiments(), "filter": "tags.verdict = 'fail'"},
    ).json()["runs"]
    tags = {tag["key"]: tag["value"] for tag in failed[0]["data"]["tags"]}
    assert tuple(tags["reasons"].splitlines()) == reasons
    card = Parts(demo_run.settings).settings.runs / MODEL / tags["run"] / "evaluation" / "card.html"
    assert reasons[0].split(";")[0] in html.unescape(card.read_text())
    assert demo_run.alias("champion") == demo_run.ledger(ChampionPromoted)[-1].version


def test_the_registry_names_the_champion_and_its_evidence(demo_run: DemoRun) -> None:
    champion = demo_run.alias("champion")
    assert champion == demo_run.ledger(ChampionPromoted)[-1].version
    assert demo_run.alias("challenger") is None
    query = {"name": MODEL, "version": champion}
    answer = httpx.get(f"{demo_run.settings.mlflow_url}/api/2.0/mlflow/model-versions/get", params=query).json()
    tags = {tag["key"]: tag["value"] for tag in answer["model_version"]["tags"]}
    assert tags["verdict"] == "pass"
    assert tags["approved_by"] == "admin"
    run = httpx.get(
        f"{demo_run.settings.mlflow_url}/api/2.0/mlflow/runs/get", params={"run_id": answer["model_version"]["run_id"]}
    )
    assert run.json()["run"]["info"]["status"] == "FINISHED"


def test_the_gateway_answers_with_the_champion(demo_run: DemoRun) -> None:
    row = flights.requests(demo.SPRING[1].date(), demo.SPRING[1].date().replace(day=2))[0]
    answer = httpx.post(f"{demo_run.settings.gateway_url}/predict", json={"rows": [row]}).json()
    assert answer["version"] == demo_run.alias("champion")
    assert 0 < answer["scores"][0] < 1


def test_the_models_page_and_its_cards_are_shown_to_who_is_logged_in_and_to_nobody_else(demo_run: DemoRun) -> None:
    root = f"{demo_run.settings.airflow_url}/perennial"
    for path in ("/", f"/{MODEL}/", f"/{MODEL}/reports/watch.html"):
        assert httpx.get(root + path).status_code == 401
    token = {"Authorization": demo_run.airflow.authorization}
    with httpx.Client(headers=token) as person:
        assert f"version {demo_run.alias('champion')} since" in html.unescape(person.get(f"{root}/").text)
        page = person.get(f"{root}/{MODEL}/").text
        cards = re.findall(r'href="(runs/[^"]+card\.html)"', page)
        reports = re.findall(r'href="(reports/[^"]+\.html)"', page)
        rollouts = re.findall(r'href="(rollouts/[^"]+/)"', page)
        assert len(cards) == 3
        assert len(set(rollouts)) == len(demo_run.runs("rollout"))
        assert any("validation" in report for report in reports)
        for path in (*cards, *rollouts, *reports):
            assert person.get(f"{root}/{MODEL}/{path}").status_code == 200, path
        for wrong in (
            "reports/../../airflow/passwords.json",
            "reports/%2e%2e/%2e%2e/stack.json",
            "reports/nothing.html",
        ):
            assert person.get(f"{root}/{MODEL}/{wrong}").status_code == 404
        assert person.get(f"{root}/nobody/").status_code in (403, 404)


def test_a_runs_tab_leads_to_its_evidence(demo_run: DemoRun) -> None:
    trained, rolled_out = demo_run.runs("train")[0]["dag_run_id"], demo_run.runs("rollout")[0]["dag_run_id"]
    tabs = {
        f"{MODEL}.train/{trained}": "Trained on 2013-01-01",
        f"{MODEL}.rollout/{rolled_out}": "rollout of version 1",
        f"{MODEL}.data/{demo_run.runs('data')[0]['dag_run_id']}": "Model versions",
    }
    with httpx.Client(headers={"Authorization": demo_run.airflow.authorization}, follow_redirects=True) as person:
        for tab, text in tabs.items():
            assert text in person.get(f"{demo_run.settings.airflow_url}/perennial/of/{tab}").text


def test_a_button_of_the_models_page_sends_traffic_back_for_who_is_logged_in(demo_run: DemoRun) -> None:
    steer, router = f"{demo_run.settings.airflow_url}/perennial/{MODEL}/steer", Parts(demo_run.settings).router()
    router.apply(MODEL, Routes(canary=10))
    form, token = {"word": "roll back", "reason": "too slow"}, {"Authorization": demo_run.airflow.authorization}
    assert httpx.post(steer, data=form).status_code == 401
    cookie = {"_token": demo_run.airflow.authorization.removeprefix("Bearer ")}
    for origin in ("http://elsewhere.test", "null", f"{demo_run.settings.airflow_url}.elsewhere.test"):
        assert httpx.post(steer, data=form, cookies=cookie, headers={"Origin": origin}).status_code == 403
    assert httpx.post(steer, data=form, cookies=cookie).status_code == 403, (
        "a page without a referrer may send no origin"
    )
    assert httpx.post(steer, data={"word": "pause"}, headers=token).status_code == 409, "no rollout runs"
    assert router.current(MODEL) == Routes(canary=10)
    own = {"Origin": demo_run.settings.airflow_url}
    assert httpx.post(steer, data=form, cookies=cookie, headers=own).status_code == 303
    assert router.current(MODEL) == Routes()
    assert [(action.by, action.reason) for action in demo_run.ledger(ActionRequested)] == [("admin", "too slow")]


def test_a_rollback_needs_neither_airflow_nor_mlflow(demo_run: DemoRun) -> None:
    from include.stages.rollout import rollout

    services = Parts(demo_run.settings).rollout_services()
    services.router.apply(MODEL, Routes(canary=10))
    rollout.rollback(MODEL, services, "a person asked for it")
    assert services.router.current(MODEL) == Routes()


def test_the_settings_file_is_loaded(demo_run: DemoRun) -> None:
    pools = {pool["name"]: pool["slots"] for pool in demo_run.airflow.get("/pools")["pools"]}
    assert pools["training"] == 1
    assert demo_run.airflow.get("/variables/retraining_paused")["value"] == ""


def test_the_story_ends_with_its_tables(demo_run: DemoRun) -> None:
    for title in ("Model versions", "Canary", "Watch", "Time"):
        assert title in demo_run.printed
    assert "0 failed" in demo_run.printed
