"""The learning rate over a training."""

import pytest

from tests.unit.trainer.toys import schedule


def test_rate_rises_then_falls_to_nothing() -> None:
    rates = [schedule().lr_at(step) for step in range(1000)]
    assert max(rates) == pytest.approx(0.01, rel=0.01)
    assert rates[0] < rates[10] < rates[19]
    assert rates[999] < 1e-5
    longer = [schedule(warm_up=0.2).lr_at(step) for step in range(1000)]
    assert longer.index(max(longer)) == pytest.approx(199, abs=1)
