"""The search of settings: what is asked, trained and taken."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from include.artifacts import store
from include.artifacts.store import Reference
from include.stages.training import search
from include.stages.training.search import Attempt
from tests.fakes import FakeLauncher
from tests.unit.toy import toy

SPEC = toy(training={"search": {"trainings": 3, "dropout": [0.4, 0.5]}})
OWN = {"learning_rate": 2e-3, "cross_rank": 32, "dropout": 0.3}


class Low:
    """Suggests the least of every setting, and keeps what it was asked."""

    def ask(self, space, told, count, seed):
        self.space, self.told = space, told
        return [
            {"learning_rate": space.learning_rate[0], "cross_rank": space.cross_rank[0], "dropout": space.dropout[0]}
        ] * count


def test_the_first_of_all_is_the_specs_own_and_the_space_holds_it():
    searcher = Low()
    asked = search.ask(SPEC, [], searcher)
    assert asked[0] == OWN
    assert len(asked) == 3
    assert searcher.space.dropout == (0.3, 0.5)


def test_later_rounds_are_told_what_the_earlier_showed():
    searcher = Low()
    told = [Attempt(OWN, 0.45, Reference("a", "b"))]
    assert len(search.ask(SPEC, told, searcher)) == 3
    assert searcher.told == [(OWN, 0.45)]


def test_an_attempt_trains_with_its_settings_in_a_folder_of_its_own(tmp_path: Path):
    data, launcher = store.write(tmp_path / "dataset.json", {"run": "r1"}), FakeLauncher()
    tried = [search.attempt(SPEC, {**OWN, "cross_rank": rank}, data, tmp_path, launcher) for rank in (16, 64)]
    assert [job["model"]["cross_rank"] for job in launcher.jobs] == [16, 64]
    assert len({attempt.result.uri for attempt in tried}) == 2
    assert tried[0].logloss == 0.45


def test_the_best_on_the_validate_windows_is_taken():
    told = [Attempt(OWN, loss, Reference(str(loss), "")) for loss in (0.46, 0.44, 0.45)]
    assert search.best(told).uri == "0.44"


def test_a_family_without_these_settings_is_refused():
    with pytest.raises(ValidationError, match="a lightgbm model has none of its settings"):
        toy(model={"family": "lightgbm"}, training={"search": {}})
