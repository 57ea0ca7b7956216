"""The one place where a verdict or an error becomes an Airflow state."""

from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.domain.errors import Conflict, Corrupt, Unavailable, UserMistake
from include.domain.training.pods import NotStarted
from include.domain.verdict import Outcome, Verdict

#: Whether and when a failed task is retried. A user's mistake, a corrupt artifact or a lost race fails at once, because a
#: retry would give the same answer.
RETRY_BY_CAUSE = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=[UserMistake, Corrupt, Conflict], action=RetryAction.FAIL, reason="a retry cannot change this"
        ),
        RetryRule(
            exception=NotStarted,
            action=RetryAction.RETRY,
            retry_delay=timedelta(minutes=1),
            reason="no node or image",
        ),
        RetryRule(
            exception=Unavailable,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=5),
            reason="did not answer",
        ),
    ]
)


def raise_for_verdict(verdict: Verdict) -> None:
    """Print the verdict's reasons, and raise what makes Airflow end the task as the verdict says.

    A pass and an inconclusive verdict return: the one goes on, the other waits for a person's approval. A fail raises
    AirflowFailException, which is not retried, and an error raises AirflowException, which is.
    """
    message = f"{verdict.subject}: {verdict.outcome}\n" + "\n".join(verdict.reasons)
    for reason in verdict.reasons:
        print(reason)  # noqa: T201 - a line each: in an exception's text the log cuts them off
    if verdict.outcome is Outcome.FAIL:
        raise AirflowFailException(message)
    if verdict.outcome is Outcome.ERROR:
        raise AirflowException(message)
