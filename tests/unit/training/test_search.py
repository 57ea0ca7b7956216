"""The search of settings: what is suggested, trained and chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from include.artifacts import store
from include.artifacts.store import Reference
from include.spec.model_spec import Search
from include.stages.training import search
from include.stages.training.search import Trial
from include.stages.training.training import TrainingRun
from tests.fakes import FakeLauncher
from tests.records import dataset_manifest
from tests.unit.toy import toy

SPEC = toy(training={"search": {"trainings": 3, "dropout": [0.4, 0.5]}})
OWN = {"learning_rate": 2e-3, "cross_rank": 32, "dropout": 0.3}


class LeastOfAll:
    """Suggests the least of every setting, and remembers the space and the trials that it was given."""

    def suggest(
        self, space: Search, trials: Sequence[tuple[Mapping[str, float], float]], count: int, seed: int
    ) -> list[dict[str, float]]:
        self.space, self.trials = space, trials
        return [
            {"learning_rate": space.learning_rate[0], "cross_rank": space.cross_rank[0], "dropout": space.dropout[0]}
        ] * count


def test_the_first_of_all_is_the_specs_own_and_the_space_holds_it() -> None:
    searcher = LeastOfAll()
    suggestions = search.suggest(SPEC, [], searcher)
    assert suggestions[0] == OWN
    assert len(suggestions) == 3
    assert searcher.space.dropout == (0.3, 0.5)


def test_later_rounds_learn_from_the_trials_of_the_earlier() -> None:
    searcher = LeastOfAll()
    trials = [Trial(OWN, 0.45, Reference("a", "b"))]
    assert len(search.suggest(SPEC, trials, searcher)) == 3
    assert searcher.trials == [(OWN, 0.45)]


def test_a_trial_trains_with_its_settings_in_a_folder_of_its_own(tmp_path: Path) -> None:
    dataset, launcher = store.write(tmp_path / "dataset.json", dataset_manifest()), FakeLauncher()
    run = TrainingRun(dataset, tmp_path)
    trials = [search.run_trial(SPEC, {**OWN, "cross_rank": rank}, run, launcher) for rank in (16, 64)]
    assert [job["model"]["cross_rank"] for job in launcher.jobs] == [16, 64]
    assert len({trial.result.uri for trial in trials}) == 2
    assert trials[0].logloss == 0.45


def test_the_best_on_the_validate_windows_is_chosen() -> None:
    trials = [Trial(OWN, loss, Reference(str(loss), "")) for loss in (0.46, 0.44, 0.45)]
    assert search.best(trials).uri == "0.44"


def test_a_family_without_these_settings_is_refused() -> None:
    with pytest.raises(ValidationError, match="a lightgbm model has none of its settings"):
        toy(model={"family": "lightgbm"}, training={"search": {}})
