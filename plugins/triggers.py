"""What waits in the triggerer, so that a long hold occupies no worker."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

#: Seconds between two analyses of a rollout.
ANALYSE_EVERY = 1.0
#: Seconds between two checks for new evidence.
CHECK_EVERY = 5.0


class RolloutTrigger(BaseTrigger):
    """Analyses a model's running rollout every second until the step is decided.

    It keeps nothing in memory: a restarted triggerer goes on with the next analysis. The event holds the `decision`, `go on`
    or `roll back`, and the `sentence` with its reason.
    """

    def __init__(self, model: str, run: str) -> None:
        super().__init__()
        self.model, self.run_name = model, run

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments from which the triggerer makes this trigger."""
        return "plugins.triggers.RolloutTrigger", {"model": self.model, "run": self.run_name}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the decision; a rollout that has ended meanwhile counts as rolled back."""
        from include.domain.errors import Conflict
        from include.domain.rollout.decision import StepDecision
        from include.stages.rollout import analysis
        from plugins.current_run import open_model

        spec, parts = open_model(self.model)
        services = parts.rollout_services()
        while True:
            now = datetime.now(UTC)
            try:
                result = await asyncio.to_thread(analysis.analyse, spec, services, self.run_name, now)
            except Conflict as error:
                yield TriggerEvent({"decision": StepDecision.ROLL_BACK.value, "sentence": str(error)})
                return
            if result.decision is not StepDecision.WAIT:
                yield TriggerEvent({"decision": result.decision.value, "sentence": result.sentence})
                return
            await asyncio.sleep(ANALYSE_EVERY)


class NewEvidenceTrigger(BaseTrigger):
    """Waits until live traffic or new data shows what the last decision did not see, or until a time (epoch seconds)."""

    def __init__(self, model: str, until: float) -> None:
        super().__init__()
        self.model, self.until = model, until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments from which the triggerer makes this trigger."""
        return "plugins.triggers.NewEvidenceTrigger", {"model": self.model, "until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an empty event when the wait is over."""
        while time.time() < self.until and not await asyncio.to_thread(self._has_new_evidence):
            await asyncio.sleep(CHECK_EVERY)
        yield TriggerEvent({})

    def _has_new_evidence(self) -> bool:
        """Whether there is new evidence; False, too, while a part of the stack does not answer."""
        from include.domain.errors import Unavailable
        from include.stages.monitoring import monitoring
        from plugins.current_run import open_model

        spec, parts = open_model(self.model)
        try:
            return monitoring.has_new_evidence(spec, parts.monitoring_services(spec))
        except Unavailable as error:
            self.log.warning("%s; checked again in %.0f s", error, CHECK_EVERY)
            return False
