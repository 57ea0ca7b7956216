"""Notifications: of every task that failed for good, and of every approval that is wanted."""

import pkgutil
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseNotifier

from include.spec.model_spec import ModelSpec, Notification


class SpecNotifier(BaseNotifier):
    """Sends a message by each notifier of the spec's `notify`, which is imported when there is something to send.

    A message that cannot be sent is logged and holds nothing up: a release must not wait for a chat server.
    """

    template_fields = ("title", "text")

    def __init__(self, notifications: Sequence[Notification], title: str, text: str) -> None:
        super().__init__()
        self.notifications, self.title, self.text = notifications, title, text

    def notify(self, context: Any) -> None:
        """Send the message by every notifier."""
        for notification in self.notifications:
            try:
                notifier = pkgutil.resolve_name(notification.notifier)(**notification.filled(self.title, self.text))
                # `notify`, not a call: a call would render what an error's text may hold as a template.
                notifier.notify(context)
            except Exception as error:
                self.log.warning("%s could not notify: %s", notification.notifier, error)


def of_failure(spec: ModelSpec) -> list[SpecNotifier]:
    """Return the notifiers of a failed task; a verdict that fails is one, so its reasons are in the exception."""
    return _notifiers(spec, "{{ dag.dag_id }}: {{ ti.task_id }} failed", "{{ exception }}\n{{ ti.log_url }}")


def of_approval(spec: ModelSpec) -> list[SpecNotifier]:
    """Return the notifiers of an approval that is wanted: of a verdict that passed, or that a person must decide."""
    return _notifiers(
        spec,
        f"Release {spec.name} version {{{{ ti.xcom_pull('register')['version'] }}}}?",
        "verdict: {{ ti.xcom_pull('register')['outcome'] }}\n{{ ti.log_url }}",
    )


def _notifiers(spec: ModelSpec, title: str, text: str) -> list[SpecNotifier]:
    return [SpecNotifier(spec.notify, title, text)] if spec.notify else []
