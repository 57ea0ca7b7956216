"""The table of families: it holds every family that a spec can name, and the trainer every network that it names."""

from typing import get_args

import pytest

from include.domain.training.families import FAMILIES, FamilyName
from include.trainer.model.network import NETWORKS, network_type


def test_every_family_fits_something() -> None:
    assert set(FAMILIES) == set(get_args(FamilyName))
    assert all(family.network or family.trees for family in FAMILIES.values())


def test_the_trainer_has_every_network() -> None:
    assert {family.network for family in FAMILIES.values() if family.network} == set(NETWORKS)


def test_trees_alone_have_no_network() -> None:
    assert not FAMILIES["lightgbm"].runs_on_several_processes
    with pytest.raises(ValueError, match="a lightgbm model has no network"):
        network_type("lightgbm")


def test_only_families_with_dcn_can_be_searched() -> None:
    assert [name for name, family in FAMILIES.items() if family.searchable] == ["dcn", "blend"]
