"""What waits in the triggerer, so that a long hold keeps no worker."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

#: Seconds between two looks at the canary.
LOOK_EVERY = 1.0
#: Seconds between two questions whether there is new evidence.
ASK_EVERY = 5.0


class Looks(BaseTrigger):
    """Looks at a model's running rollout until the step is decided. It keeps nothing: a restarted triggerer looks on."""

    def __init__(self, model: str, run: str) -> None:
        super().__init__()
        self.model, self.run_name = model, run

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "plugins.triggers.Looks", {"model": self.model, "run": self.run_name}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from include.domain.errors import Conflict
        from include.stages.rollout import analysis
        from plugins.run import open_model

        spec, parts = open_model(self.model)
        controls = parts.controls()
        while True:
            try:
                seen = await asyncio.to_thread(analysis.look, spec, controls, self.run_name, datetime.now(UTC))
            except Conflict as ended:
                yield TriggerEvent({"decision": "roll back", "sentence": str(ended)})
                return
            if seen.decision != "wait":
                yield TriggerEvent({"decision": seen.decision, "sentence": seen.sentence})
                return
            await asyncio.sleep(LOOK_EVERY)


class News(BaseTrigger):
    """Waits until production shows what the last look did not see, or until a moment (epoch seconds)."""

    def __init__(self, model: str, until: float) -> None:
        super().__init__()
        self.model, self.until = model, until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "plugins.triggers.News", {"model": self.model, "until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while time.time() < self.until and not await asyncio.to_thread(self._news):
            await asyncio.sleep(ASK_EVERY)
        yield TriggerEvent({})

    def _news(self) -> bool:
        """False, too, while a part of the stack does not answer."""
        from include.domain.errors import Unavailable
        from include.stages.monitoring import monitoring
        from plugins.run import open_model

        spec, parts = open_model(self.model)
        try:
            return monitoring.has_new_evidence(spec, parts.monitoring_services(spec))
        except Unavailable as fault:
            self.log.warning("%s; asked again in %.0f s", fault, ASK_EVERY)
            return False
