"""Gates: may this challenger be released?"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AgainstChampion:
    """`metric` is `logloss` or `auc`; the challenger may be worse by no more than `margin` at `confidence`."""

    __pydantic_config__ = {"extra": "forbid"}
    metric: str = "logloss"
    margin: float = 0.002
    confidence: float = 0.95
    require: str = "not_inferior"


@dataclass(frozen=True)
class Slices:
    """No slice of at least `min_rows` may be worse than the champion by more than `margin` logloss (Holm-corrected)."""

    __pydantic_config__ = {"extra": "forbid"}
    by: tuple[str, ...] = ()
    min_rows: int = 500
    margin: float = 0.02


@dataclass(frozen=True)
class Gates:
    """The `gates` section of a spec. A bound left out is not checked; a bound given whose metric is missing fails."""

    __pydantic_config__ = {"extra": "forbid"}
    min_auc: float | None = None
    max_logloss: float | None = None
    max_ece: float | None = None
    max_p99_ms: float | None = None
    max_model_mb: float | None = None
    min_positives: int = 100
    champion: AgainstChampion = field(default_factory=AgainstChampion)
    baselines: tuple[str, ...] = ("logistic", "lightgbm")
    baseline_margin: float = 0.01
    slices: Slices = field(default_factory=Slices)
    dry_run: bool = False
