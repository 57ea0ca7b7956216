"""Who is told, and of what: every task that failed for good, and every approval that is wanted."""

import pkgutil
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseNotifier

from include.spec.model_spec import ModelSpec, Notification


class Notify(BaseNotifier):
    """Tells the spec's `notify` by Airflow notifiers, imported when there is something to tell.

    A message that cannot be sent is logged and holds nothing up: a release must not wait for a chat server.
    """

    template_fields = ("title", "text")

    def __init__(self, told: Sequence[Notification], title: str, text: str) -> None:
        super().__init__()
        self.told, self.title, self.text = told, title, text

    def notify(self, context: Any) -> None:
        for one in self.told:
            try:
                # `notify`, not a call: a call would render what an error's text may hold as a template.
                pkgutil.resolve_name(one.notifier)(**one.filled(self.title, self.text)).notify(context)
            except Exception as fault:
                self.log.warning("%s was not told: %s", one.notifier, fault)


def of_failure(spec: ModelSpec) -> list[Notify]:
    """A verdict that fails is a task that fails, so its reasons are in the exception."""
    return _each(spec, "{{ dag.dag_id }}: {{ ti.task_id }} failed", "{{ exception }}\n{{ ti.log_url }}")


def of_approval(spec: ModelSpec) -> list[Notify]:
    """A verdict that passed, or that a person must decide."""
    return _each(
        spec,
        f"Release {spec.name} version {{{{ ti.xcom_pull('register')['version'] }}}}?",
        "verdict: {{ ti.xcom_pull('register')['outcome'] }}\n{{ ti.log_url }}",
    )


def _each(spec: ModelSpec, title: str, text: str) -> list[Notify]:
    return [Notify(spec.notify, title, text)] if spec.notify else []
