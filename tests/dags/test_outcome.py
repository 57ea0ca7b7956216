"""The one place where a verdict becomes an Airflow state."""

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.domain.errors import Conflict, Corrupt, Unavailable, UserMistake
from include.domain.verdict import Check, Outcome, Verdict
from plugins.outcome import RETRY_BY_CAUSE, raise_for_verdict


def verdict(outcome: Outcome) -> Verdict:
    return Verdict("challenger", (Check("auc", outcome, "AUC 0.61, bound 0.70"),))


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.INCONCLUSIVE])
def test_a_pass_goes_on_and_so_does_what_a_person_must_decide(outcome: Outcome) -> None:
    raise_for_verdict(verdict(outcome))


def test_a_fail_ends_without_a_retry_and_says_why() -> None:
    with pytest.raises(AirflowFailException, match=r"AUC 0\.61, bound 0\.70"):
        raise_for_verdict(verdict(Outcome.FAIL))


def test_an_error_is_retried() -> None:
    with pytest.raises(AirflowException) as raised:
        raise_for_verdict(verdict(Outcome.ERROR))
    assert not isinstance(raised.value, AirflowFailException)


@pytest.mark.parametrize("error", [UserMistake("wrong"), Corrupt("damaged"), Conflict("too late")])
def test_what_a_retry_cannot_change_is_not_retried(error: Exception) -> None:
    assert RETRY_BY_CAUSE.evaluate(error, 1, 3).action is RetryAction.FAIL


def test_what_did_not_answer_is_tried_again() -> None:
    assert RETRY_BY_CAUSE.evaluate(Unavailable("down"), 1, 3).action is RetryAction.RETRY
