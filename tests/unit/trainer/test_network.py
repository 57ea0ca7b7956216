"""The networks: what is added to the logit, gradients, and odd shapes."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from include.domain.training.families import FamilyName
from include.domain.training.job_settings import NetworkSettings
from include.trainer.data.dataset import Fields
from include.trainer.export import onnx_model
from include.trainer.model.network import DCN, FieldEmbedding, Network, build_tower, embedding_width
from tests.unit.trainer.toys import fields_of, same_gradients

SETTINGS = NetworkSettings(embedding=4, cross_layers=2, cross_rank=3, hidden=(8,), dropout=0.0)


def build_network(family: FamilyName, settings: NetworkSettings, fields: Fields, train: NDArray[np.float32]) -> Network:
    rows = torch.randn(max(sum(fields.sizes), 1), embedding_width(family, settings))
    return Network(FieldEmbedding(fields.sizes, rows), build_tower(family, settings, fields, train))


def build_dcn(settings: NetworkSettings, train: NDArray[np.float32]) -> DCN:
    tower = build_tower("dcn", settings, fields_of(train), train)
    assert isinstance(tower, DCN)
    return tower


def test_embedded_number_is_its_score_along_its_fields_direction() -> None:
    train = np.random.default_rng(0).normal(0, 1, (50, 2)).astype(np.float32)
    tower = build_dcn(replace(SETTINGS, numbers="embedded"), train)
    scores = tower.scale(torch.tensor([[0.5, float("nan")]]))
    assert tower.directions is not None
    along, missing = tower.directions
    expected = torch.cat([scores[0, 0] * along[0], missing[1]])
    assert torch.allclose(tower._number_columns(torch.tensor([[0.5, float("nan")]]))[0], expected)


def test_a_categorys_own_effect_is_added_to_the_logit() -> None:
    train = np.random.default_rng(0).normal(0, 1, (50, 2)).astype(np.float32)
    fields = fields_of(train)
    network = build_network("dcn", replace(SETTINGS, first_order=0.2), fields, train)
    ids, numbers = torch.tensor([[2, 3]]), torch.zeros(1, 2)
    before = network(ids, numbers)
    with torch.no_grad():
        network.table.rows.weight[2, -1] += 0.5
        network.table.rows.weight[fields.sizes[0] + 3, -1] += 0.25
    assert (network(ids, numbers) - before).item() == pytest.approx(0.75, abs=1e-5)


@pytest.mark.parametrize("first_order", [0.0, 0.2])
@pytest.mark.parametrize("numbers_as", ["scaled", "embedded"])
@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_all_that_is_learned_has_the_gradient_that_it_has_where_data_have_one_too(
    structure: Literal["parallel", "stacked"], numbers_as: Literal["scaled", "embedded"], first_order: float
) -> None:
    train = np.random.default_rng(0).normal(0, 1, (50, 2)).astype(np.float32)
    settings = replace(
        SETTINGS, cross_rank=0, dropout=0.25, structure=structure, numbers=numbers_as, first_order=first_order
    )
    tower = build_dcn(settings, train)
    vectors = torch.randn(20, 2, embedding_width("dcn", settings), requires_grad=True)
    inputs = vectors, torch.from_numpy(train[:20]), torch.randint(0, 256, (20, 8), dtype=torch.uint8)
    some, tower.grad_columns = tower(*inputs), None
    assert same_gradients(some, tower(*inputs), [vectors, *tower.parameters()])


@pytest.mark.parametrize("first_order", [0.0, 0.2])
@pytest.mark.parametrize("numbers_as", ["scaled", "embedded"])
@pytest.mark.parametrize(("categories", "numbers"), [(2, 3), (0, 3), (2, 0)])
@pytest.mark.parametrize("family", ["dcn", "logistic"])
def test_graph_takes_any_number_of_fields_and_rows(
    categories: int,
    numbers: int,
    family: FamilyName,
    numbers_as: Literal["scaled", "embedded"],
    first_order: float,
    tmp_path: Path,
) -> None:
    import onnxruntime

    train = np.random.default_rng(0).normal(0, 1, (50, numbers)).astype(np.float32)
    fields = fields_of(train, categories)
    network = build_network(
        family, replace(SETTINGS, numbers=numbers_as, first_order=first_order), fields, train
    ).eval()
    onnx_model.write(network, tmp_path / "graph")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph"), providers=["CPUExecutionProvider"])
    for rows in (1, 7):
        ids, raw = np.ones((rows, categories), dtype=np.int64), train[:rows]
        (scores,) = session.run(["score"], {"ids": ids, "numbers": raw})
        expected = torch.sigmoid(network(torch.from_numpy(ids), torch.from_numpy(raw))).detach().numpy()
        assert scores.shape == (rows,)
        assert scores == pytest.approx(expected, abs=1e-5)


def test_stacked_and_full_rank_train_too() -> None:
    train = np.random.default_rng(0).normal(0, 1, (50, 2)).astype(np.float32)
    settings = NetworkSettings(
        embedding=4, cross_layers=2, cross_rank=0, hidden=(8, 4), dropout=0.0, structure="stacked"
    )
    network = build_network("dcn", settings, fields_of(train), train)
    network(torch.ones(3, 2, dtype=torch.int64), torch.randn(3, 2)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
