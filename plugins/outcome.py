"""The one place where a verdict or an error becomes an Airflow state."""

from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.domain.errors import Conflict, Corrupt, Unavailable, UserMistake
from include.domain.training.pods import NotStarted
from include.domain.verdict import Outcome, Verdict

#: A user's mistake, a corrupt artifact or a lost race fails at once: doing it again gives the same answer.
BY_CAUSE = ExceptionRetryPolicy(rules=[
    RetryRule(exception=[UserMistake, Corrupt, Conflict], action=RetryAction.FAIL, reason="a retry cannot change this"),
    RetryRule(exception=NotStarted, action=RetryAction.RETRY, retry_delay=timedelta(minutes=1), reason="no node or image"),
    RetryRule(exception=Unavailable, action=RetryAction.RETRY, retry_delay=timedelta(seconds=5), reason="did not answer"),
])  # fmt: skip


def settle(verdict: Verdict) -> None:
    """Pass goes on; inconclusive goes on to a person, who must approve; fail ends without a retry; error is retried."""
    said = f"{verdict.subject}: {verdict.outcome}\n" + "\n".join(verdict.reasons)
    for reason in verdict.reasons:
        print(reason)  # noqa: T201 - a line each: in an exception's text the log cuts them off
    if verdict.outcome is Outcome.FAIL:
        raise AirflowFailException(said)
    if verdict.outcome is Outcome.ERROR:
        raise AirflowException(said)
