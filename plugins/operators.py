"""Operators that wait: for a person's approval, and for a step of the rollout to be decided."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.spec import ModelSpec
from plugins import notifications
from plugins.run import open_model, run_name
from plugins.triggers import Looks


class Approve(HITLOperator):
    """Shows the evidence and waits for a person; with `approval: {mode: auto}` a passed verdict approves itself."""

    APPROVE, REJECT = "Approve", "Reject"

    def __init__(self, *, auto: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.auto = auto

    @classmethod
    def of(cls, spec: ModelSpec) -> "Approve":
        return cls(
            task_id="approve",
            auto=spec.approval.mode == "auto",
            subject=f"Release {spec.name} version {{{{ ti.xcom_pull('register')['version'] }}}}?",
            options=[cls.APPROVE, cls.REJECT],
            defaults=cls.REJECT,
            response_timeout=spec.approval.timeout,
            execution_timeout=None,
            params={"reason": Param("", type="string", description="Why; kept with the version")},
            notifiers=notifications.of_approval(spec),
            pool="serving",
        )

    def execute(self, context: Any) -> Any:
        registered = context["ti"].xcom_pull(task_ids="register")
        if self.auto and registered["outcome"] == "pass":
            for notifier in self.notifiers:
                notifier(context)
            return {"chosen_options": [self.APPROVE], "params_input": {}, "responded_by_user": {"name": "auto"}}
        self.body = Path(registered["card"]).read_text(encoding="utf-8")
        if registered["page"]:
            self.body += f"\n\n[Plots, the card as a page, and every file behind it]({registered['page']})"
        return super().execute(context)


class HoldStep(BaseOperator):
    """Lets traffic flow as one step of the rollout's plan says, and holds it until the judge has decided."""

    def __init__(self, *, model: str, step: int, **kwargs: Any) -> None:
        super().__init__(pool="serving", trigger_rule="none_failed", **kwargs)
        self.model, self.step = model, step

    @classmethod
    def each_of(cls, spec: ModelSpec) -> list["HoldStep"]:
        """`shadow`, then `canary_<weight>` for each step of the plan."""
        names = ["shadow", *(f"canary_{step.weight}" for step in spec.rollout.steps)]
        return [cls(task_id=name, model=spec.name, step=number) for number, name in enumerate(names)]

    def execute(self, context: Any) -> None:
        from include.stages import rollout

        spec, parts = open_model(self.model)
        run = run_name()
        reason = rollout.enter(spec, parts.controls(), run, self.step, datetime.now(UTC))
        if reason:
            raise AirflowSkipException(reason)
        self.defer(trigger=Looks(self.model, run), method_name="settle")

    def settle(self, context: Any, event: dict[str, str]) -> str:
        """The judge's sentence. Fails without a retry when traffic went back to the champion."""
        if event["decision"] == "roll back":
            raise AirflowFailException(event["sentence"])
        self.log.info(event["sentence"])
        return event["sentence"]
