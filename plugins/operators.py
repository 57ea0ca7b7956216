"""Operators that wait, for a person, a step of the rollout or new evidence, and the one that writes the reports."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator, BaseOperatorLink, BaseSensorOperator, Param
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.spec.model_spec import ModelSpec
from plugins import notifications
from plugins.current_run import PAGES, XComReference, open_model, run_name
from plugins.triggers import NewEvidenceTrigger, RolloutTrigger

#: Seconds after which the watch measures again without new evidence: a pause may be over, a training have ended.
MAX_QUIET_SECONDS = 600.0


class ApprovalOperator(HITLOperator):
    """Shows the evidence and waits for a person; with `approval: {mode: auto}` a passed verdict approves itself."""

    APPROVE, REJECT = "Approve", "Reject"

    def __init__(self, *, model: str, auto: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model, self.auto = model, auto

    @classmethod
    def for_spec(cls, spec: ModelSpec) -> "ApprovalOperator":
        """Return the task `approve`."""
        return cls(
            task_id="approve",
            model=spec.name,
            auto=spec.approval.mode == "auto",
            subject=f"Release {spec.name} version {{{{ ti.xcom_pull('register')['version'] }}}}?",
            options=[cls.APPROVE, cls.REJECT],
            defaults=cls.REJECT,
            response_timeout=spec.approval.timeout,
            execution_timeout=None,
            params={"reason": Param(None, type=["null", "string"], description="Why; recorded with the version")},
            notifiers=notifications.of_approval(spec),
            pool="serving",
        )

    def execute(self, context: Any) -> Any:
        """Approve at once where the spec and the verdict allow it, else show the card and wait for an answer."""
        registered = context["ti"].xcom_pull(task_ids="register")
        if self.auto and registered["outcome"] == "pass":
            for notifier in self.notifiers:
                notifier(context)
            return {"chosen_options": [self.APPROVE], "params_input": {}, "responded_by_user": {"name": "auto"}}
        card = f"{PAGES}/{self.model}/runs/{run_name()}/evaluation/card.html"
        links = [f"[The card with its plots]({card})", f"[the model's page]({PAGES}/{self.model}/)"]
        if registered["page"]:
            links.append(f"[every file behind it, in MLflow]({registered['page']})")
        self.body = f"{' · '.join(links)}\n\n{Path(registered['card']).read_text(encoding='utf-8')}"
        return super().execute(context)


class RolloutStepOperator(BaseOperator):
    """Splits the traffic as one step of the rollout's plan says, and holds it until the step is decided."""

    def __init__(self, *, model: str, step: int, **kwargs: Any) -> None:
        super().__init__(pool="serving", trigger_rule="none_failed", **kwargs)
        self.model, self.step = model, step

    @classmethod
    def for_plan(cls, spec: ModelSpec) -> list["RolloutStepOperator"]:
        """Return the tasks `shadow` and then `canary_<weight>` for each step of the plan."""
        names = ["shadow", *(f"canary_{step.weight}" for step in spec.rollout.steps)]
        return [cls(task_id=name, model=spec.name, step=number) for number, name in enumerate(names)]

    def execute(self, context: Any) -> None:
        """Enter the step and wait in the triggerer; skipped where the plan or a first release has no such step."""
        from include.stages.rollout import rollout

        spec, parts = open_model(self.model)
        run = run_name()
        reason = rollout.enter_step(spec, parts.rollout_services(), run, self.step, datetime.now(UTC))
        if reason:
            raise AirflowSkipException(reason)
        self.defer(trigger=RolloutTrigger(self.model, run), method_name="conclude")

    def conclude(self, context: Any, event: dict[str, str]) -> str:
        """Return the sentence of the trigger's event. Fails without a retry when traffic went back to the champion."""
        from include.domain.rollout.decision import StepDecision

        if event["decision"] == StepDecision.ROLL_BACK:
            raise AirflowFailException(event["sentence"])
        self.log.info(event["sentence"])
        return event["sentence"]


class NewEvidenceSensor(BaseSensorOperator):
    """The task `sense`: waits for evidence that the last decision did not rest on, then measures every signal."""

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(task_id="sense", pool="serving", **kwargs)
        self.model = model

    def poke(self, context: Any) -> bool:
        """Return whether there is new evidence."""
        from include.stages.monitoring import monitoring

        spec, parts = open_model(self.model)
        return monitoring.has_new_evidence(spec, parts.monitoring_services(spec))

    def execute(self, context: Any) -> XComReference:
        """Measure at once where there is new evidence, else wait for it in the triggerer, for ten minutes at most."""
        if not self.poke(context):
            self.defer(trigger=NewEvidenceTrigger(self.model, time.time() + MAX_QUIET_SECONDS), method_name="measure")
        return self.measure(context)

    def measure(self, context: Any, event: Any = None) -> XComReference:
        """Write a snapshot of every signal and return the reference to it."""
        from include.stages.monitoring import monitoring, snapshot

        spec, parts = open_model(self.model)
        measured = monitoring.take_snapshot(spec, parts.monitoring_services(spec))
        for signal in measured.signals:
            self.log.info("%-8s %-17s %s", signal.state, signal.name, signal.sentence)
        return asdict(snapshot.write(measured, parts.watch_folder(spec) / f"{run_name()}.json"))


class PageLink(BaseOperatorLink):
    """A button on a task to a page that it wrote; the task's result has the page's path below the model's reports."""

    def __init__(self, name: str, key: str) -> None:
        self._name, self.key = name, key

    @property
    def name(self) -> str:
        """Return the text of the button."""
        return self._name

    @property
    def xcom_key(self) -> str:
        """Return the key under which Airflow stores the link."""
        return f"_link_{self.key}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL of the page, empty where the task wrote none."""
        from airflow.sdk.execution_time.xcom import XCom

        pages = XCom.get_value(ti_key=ti_key, key="return_value") or {}
        root = f"{conf.get('api', 'base_url').rstrip('/')}/perennial/{operator.model}/reports/"
        return root + pages[self.key] if pages.get(self.key) else ""


class WatchReport(BaseOperator):
    """The task `report`: writes the page of the champion's timeline and Evidently's report of the newest window."""

    operator_extra_links = (PageLink("Watch page", "watch"), PageLink("Evidently's report", "drift"))

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(task_id="report", pool="serving", **kwargs)
        self.model = model

    def execute(self, context: Any) -> dict[str, str]:
        """Write the pages and return their paths below the folder of the model's reports, by name."""
        from include.stages.monitoring import timeline

        spec, parts = open_model(self.model)
        services, pages = parts.monitoring_services(spec), {}
        if windows := timeline.build_timeline(spec, services):
            pages["watch"] = parts.timeline_page(spec, windows)
        if compared := timeline.drift_report_input(spec, services):
            pages["drift"] = parts.drift_report(spec, compared)
        folder = parts.settings.reports / self.model
        return {name: str(path.relative_to(folder)) for name, path in pages.items()}
