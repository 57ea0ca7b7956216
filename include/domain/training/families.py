"""The families of models: what each one fits, and what follows from that for its training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FamilyName = Literal["dcn", "logistic", "lightgbm", "blend"]
NetworkName = Literal["dcn", "logistic"]


@dataclass(frozen=True)
class ModelFamily:
    """What a family fits: a network by gradient descent, gradient-boosted trees, or both, whose probabilities it averages."""

    network: NetworkName | None
    trees: bool
    trains_in_seconds: bool = False  #: in one process, so that a supervisor of processes would take longer than it

    @property
    def runs_on_several_processes(self) -> bool:
        """Whether several processes or machines can share a training; LightGBM's trees are grown by one process."""
        return self.network is not None

    @property
    def searchable(self) -> bool:
        """Whether the family has the settings that `training.search` varies, which are DCN-v2's."""
        return self.network == "dcn"


FAMILIES: Mapping[FamilyName, ModelFamily] = {
    "dcn": ModelFamily(network="dcn", trees=False),
    "logistic": ModelFamily(network="logistic", trees=False, trains_in_seconds=True),
    "lightgbm": ModelFamily(network=None, trees=True, trains_in_seconds=True),
    "blend": ModelFamily(network="dcn", trees=True),
}
