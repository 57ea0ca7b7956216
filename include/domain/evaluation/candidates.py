"""The names of the candidates that are scored on the same test rows, beside the baselines' families."""

CHALLENGER = "challenger"
CHAMPION = "champion"
