"""Searcher: Optuna's tree-structured Parzen estimator, built anew from all trials at each call."""

from collections.abc import Mapping, Sequence

from include.spec.model_spec import Search

#: Settings drawn at random before the estimator has enough to learn from.
RANDOM_FIRST = 3


class TreeParzen:
    """Suggests settings by a tree-structured Parzen estimator (Bergstra et al. 2011)."""

    def suggest(
        self, space: Search, trials: Sequence[tuple[Mapping[str, float], float]], count: int, seed: int
    ) -> list[dict[str, float]]:
        """Return `count` settings after these trials, which are settings with their loss; a function of its arguments."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            "learning_rate": optuna.distributions.FloatDistribution(*space.learning_rate, log=True),
            "cross_rank": optuna.distributions.CategoricalDistribution(space.cross_rank),
            "dropout": optuna.distributions.FloatDistribution(*space.dropout),
        }
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST))
        for settings, loss in trials:
            study.add_trial(optuna.trial.create_trial(params=dict(settings), distributions=distributions, value=loss))
        return [study.ask(distributions).params for _ in range(count)]
