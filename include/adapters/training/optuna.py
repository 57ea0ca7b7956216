"""Searcher: Optuna's tree-structured Parzen estimator, asked and told; all it knows is handed to it each time."""

from collections.abc import Mapping, Sequence

from include.spec.model_spec import Search

#: Settings drawn at random before the estimator has enough to learn from.
RANDOM_FIRST = 3


class TreeParzen:
    def ask(
        self, space: Search, told: Sequence[tuple[Mapping[str, float], float]], count: int, seed: int
    ) -> list[dict[str, float]]:
        """The same for the same seed and the same that was told."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            "learning_rate": optuna.distributions.FloatDistribution(*space.learning_rate, log=True),
            "cross_rank": optuna.distributions.CategoricalDistribution(space.cross_rank),
            "dropout": optuna.distributions.FloatDistribution(*space.dropout),
        }
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_FIRST))
        for settings, loss in told:
            trial = optuna.trial.create_trial(params=dict(settings), distributions=distributions, value=loss)
            study.add_trial(trial)
        return [study.ask(distributions).params for _ in range(count)]
