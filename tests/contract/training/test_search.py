"""Settings that Optuna suggests."""

from include.adapters.training.optuna import TreeParzen
from include.spec.model_spec import Search

SPACE = Search()


def test_suggestions_lie_in_the_space_and_differ() -> None:
    suggestions = TreeParzen().suggest(SPACE, [], 6, seed=1)
    assert len({str(settings) for settings in suggestions}) == 6
    for settings in suggestions:
        assert 5e-4 <= settings["learning_rate"] <= 5e-3
        assert settings["cross_rank"] in SPACE.cross_rank
        assert 0 <= settings["dropout"] <= 0.5


def test_the_same_is_suggested_again_after_the_same_was_told() -> None:
    trials = [(settings, settings["dropout"]) for settings in TreeParzen().suggest(SPACE, [], 4, seed=1)]
    assert TreeParzen().suggest(SPACE, trials, 2, seed=2) == TreeParzen().suggest(SPACE, trials, 2, seed=2)


def test_what_was_told_draws_suggestions_to_where_the_loss_was_low() -> None:
    trials = [(settings, settings["dropout"]) for settings in TreeParzen().suggest(SPACE, [], 20, seed=1)]
    later = TreeParzen().suggest(SPACE, trials, 20, seed=2)
    assert sum(s["dropout"] for s in later) / 20 < 0.5 * sum(s["dropout"] for s, _ in trials) / 20
