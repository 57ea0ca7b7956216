"""The models: scaling, the cross layers' equations, and odd shapes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from include.domain.features.encoding import fit
from include.domain.training.settings import NetworkSettings
from include.trainer.data.dataset import Fields
from include.trainer.export import onnx_model
from include.trainer.model import layers, network
from include.trainer.model.scaling import RankGaussianScaler

SETTINGS = NetworkSettings(embedding=4, cross_layers=2, cross_rank=3, hidden=(8,), dropout=0.0)


def fields_of(numbers: np.ndarray, categories: int = 2) -> Fields:
    fields = [f"c{i}" for i in range(categories)]
    columns = {"at": [0] * len(numbers), **{f: ["a", "b"] * (len(numbers) // 2) for f in fields}}
    columns |= {f"x{i}": numbers[:, i] for i in range(numbers.shape[1])}
    return fit(columns, time="at", zone="UTC", time_parts=(), categorical=fields,
               numeric=[f"x{i}" for i in range(numbers.shape[1])], min_frequency=1)  # fmt: skip


def net_of(family: str, settings: NetworkSettings, fields: Fields, train: np.ndarray) -> network.Network:
    rows = torch.randn(max(sum(fields.sizes), 1), network.embedding_width(family, settings))
    return network.Network(
        network.FieldEmbedding(fields.sizes, rows), network.build_tower(family, settings, fields, train)
    )


def scaled(train: np.ndarray, numbers: list[float]) -> np.ndarray:
    scale = RankGaussianScaler(fields_of(train), train)
    return scale(torch.tensor(numbers, dtype=torch.float32)[:, None]).numpy()


def test_numbers_become_normal_scores_whatever_their_distribution():
    train = np.random.default_rng(0).lognormal(3, 2, (20_000, 1)).astype(np.float32)
    quantiles = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    scores = scaled(train, np.quantile(train, quantiles).tolist())[:, 0]
    assert scores == pytest.approx(norm.ppf(quantiles), abs=0.05)


def test_numbers_never_seen_are_no_stranger_than_the_strangest_in_fifty():
    train = np.random.default_rng(0).normal(0, 1, (1000, 1)).astype(np.float32)
    assert scaled(train, [-1e30, 1e30])[:, 0] == pytest.approx([norm.ppf(0.02), norm.ppf(0.98)], abs=1e-4)


def test_numbers_outside_of_what_a_field_of_few_values_knows_keep_to_its_ends():
    train = np.stack([np.arange(1000) % values for values in (3, 11)], axis=1).astype(np.float32)
    scale = RankGaussianScaler(fields_of(train), train)
    low, lowest, high, highest = scale(torch.tensor([[0.0, 0.0], [-9.0, -1e30], [2.0, 10.0], [9.0, 1e30]]))
    assert torch.equal(low, lowest)
    assert torch.equal(high, highest)
    assert (low[:2] < high[:2]).all()


def test_search_of_a_gpu_scores_as_the_processors_does():
    train = np.random.default_rng(0).lognormal(3, 2, (1000, 2)).astype(np.float32)
    train[:, 1] = np.arange(1000) % 5
    scale, ends = RankGaussianScaler(fields_of(train), train), torch.tensor([[-1e30, -1e30], [1e30, 1e30]])
    numbers = torch.cat([torch.from_numpy(train), ends])
    gpus, processors = (
        scale._scores(numbers, search(numbers)) for search in (scale._find_pieces, scale._find_pieces_on_cpu)
    )
    assert torch.equal(gpus, processors)


def test_missing_number_is_the_middle_with_its_flag_up():
    train = np.random.default_rng(0).normal(0, 1, (1000, 1)).astype(np.float32)
    assert scaled(train, [float("nan"), 0.0])[:, 1].tolist() == [1.0, 0.0]
    assert scaled(train, [float("nan")])[0, 0] == 0.0


def test_a_value_held_by_most_rows_sits_in_the_middle_of_their_ranks():
    train = np.zeros((1000, 1), dtype=np.float32)
    train[:100, 0] = np.linspace(1, 2, 100)
    assert scaled(train, [0.0])[0, 0] == pytest.approx(norm.ppf(0.45), abs=0.01)


@pytest.mark.parametrize("value", [3.0, float("nan")])
def test_a_number_that_never_varies_says_nothing(value):
    train = np.full((10, 1), value, dtype=np.float32)
    assert len(set(scaled(train, [1.0, 3.0, 9.0])[:, 0])) == 1


def same_gradients(ours: torch.Tensor, theirs: torch.Tensor, wanted: list[torch.Tensor]) -> bool:
    pairs = zip(*(torch.autograd.grad(y.square().sum(), wanted) for y in (ours, theirs)), strict=True)
    return all(torch.allclose(mine, other, atol=1e-4) for mine, other in pairs)


@pytest.mark.parametrize("grad_columns", [0, 2, 3])
def test_cross_layers_are_equation_one_each_and_their_gradient_that_equations(grad_columns):
    crosses = layers.CrossNetwork(layers.CrossLayer(3) for _ in range(3))
    own, data = torch.randn(5, grad_columns, requires_grad=True), torch.randn(5, 3 - grad_columns)
    x0 = expected = torch.cat([own, data], dim=1)
    for layer in crosses:
        expected = x0 * (expected @ layer.linear.weight.T + layer.linear.bias) + expected
    crossed = crosses(x0, grad_columns)
    assert torch.allclose(crossed, expected, atol=1e-5)
    assert same_gradients(crossed, expected, [own, *crosses.parameters()])


@pytest.mark.parametrize("grad_columns", [0, 4, 6])
def test_dropout_keeps_units_by_their_bytes_and_their_mean(grad_columns):
    layer = layers.HiddenLayer(6, 32, 0.25)
    own, dropout_bytes = (
        torch.randn(64, grad_columns, requires_grad=True),
        torch.randint(0, 256, (64, 32), dtype=torch.uint8),
    )
    x = torch.cat([own, torch.randn(64, 6 - grad_columns)], dim=1)
    expected = torch.relu(x @ layer.weight.T + layer.bias) * (dropout_bytes >= 64) / 0.75
    kept = layer(x, dropout_bytes, grad_columns)
    assert torch.allclose(kept, expected, atol=1e-5)
    assert same_gradients(kept, expected, [own, layer.weight, layer.bias])


def test_low_rank_cross_layer_is_equation_two():
    layer, x0, x = layers.LowRankCrossLayer(6, 2, 1), torch.randn(5, 6), torch.randn(5, 6)
    up, down = layer.up[0], layer.down[0]
    expected = x0 * ((x @ down.weight.T) @ up.weight.T + up.bias) + x
    assert torch.allclose(layer(x0, x), expected, atol=1e-6)


def test_mixture_of_equal_experts_is_one_of_them():
    layer, x0, x = layers.LowRankCrossLayer(6, 2, 3), torch.randn(5, 6), torch.randn(5, 6)
    for experts in (layer.down, layer.up, layer.middle):
        for expert in experts[1:]:
            expert.load_state_dict(experts[0].state_dict())
    inner = torch.tanh(layer.middle[0](torch.tanh(layer.down[0](x))))
    assert torch.allclose(layer(x0, x), x0 * layer.up[0](inner) + x, atol=1e-6)


def test_embedded_number_is_its_score_along_its_fields_direction():
    train = np.random.default_rng(0).normal(0, 1, (50, 2)).astype(np.float32)
    tower = network.build_tower("dcn", replace(SETTINGS, numbers="embedded"), fields_of(train), train)
    scores = tower.scale(torch.tensor([[0.5, float("nan")]]))
    along, missing = tower.directions
    expected = torch.cat([scores[0, 0] * along[0], missing[1]])
    assert torch.allclose(tower._number_columns(torch.tensor([[0.5, float("nan")]]))[0], expected)


def test_a_categorys_own_effect_is_added_to_the_logit():
    train = np.random.default_rng(0).normal(0, 1, (50, 2)).astype(np.float32)
    fields = fields_of(train)
    net = net_of("dcn", replace(SETTINGS, first_order=0.2), fields, train)
    ids, numbers = torch.tensor([[2, 3]]), torch.zeros(1, 2)
    before = net(ids, numbers)
    with torch.no_grad():
        net.table.rows.weight[2, -1] += 0.5
        net.table.rows.weight[fields.sizes[0] + 3, -1] += 0.25
    assert (net(ids, numbers) - before).item() == pytest.approx(0.75, abs=1e-5)


@pytest.mark.parametrize("first_order", [0.0, 0.2])
@pytest.mark.parametrize("numbers_as", ["scaled", "embedded"])
@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_all_that_is_learned_has_the_gradient_that_it_has_where_data_have_one_too(structure, numbers_as, first_order):
    train = np.random.default_rng(0).normal(0, 1, (50, 2)).astype(np.float32)
    settings = replace(
        SETTINGS, cross_rank=0, dropout=0.25, structure=structure, numbers=numbers_as, first_order=first_order
    )
    tower = network.build_tower("dcn", settings, fields_of(train), train)
    vectors = torch.randn(20, 2, network.embedding_width("dcn", settings), requires_grad=True)
    inputs = vectors, torch.from_numpy(train[:20]), torch.randint(0, 256, (20, 8), dtype=torch.uint8)
    ours, tower.grad_columns = tower(*inputs), None
    assert same_gradients(ours, tower(*inputs), [vectors, *tower.parameters()])


@pytest.mark.parametrize("first_order", [0.0, 0.2])
@pytest.mark.parametrize("numbers_as", ["scaled", "embedded"])
@pytest.mark.parametrize(("categories", "numbers"), [(2, 3), (0, 3), (2, 0)])
@pytest.mark.parametrize("family", ["dcn", "logistic"])
def test_graph_takes_any_number_of_fields_and_rows(categories, numbers, family, numbers_as, first_order, tmp_path):
    import onnxruntime

    train = np.random.default_rng(0).normal(0, 1, (50, numbers)).astype(np.float32)
    fields = fields_of(train, categories)
    net = net_of(family, replace(SETTINGS, numbers=numbers_as, first_order=first_order), fields, train).eval()
    onnx_model.write(net, tmp_path / "graph")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph"), providers=["CPUExecutionProvider"])
    for rows in (1, 7):
        ids, raw = np.ones((rows, categories), dtype=np.int64), train[:rows]
        (scores,) = session.run(["score"], {"ids": ids, "numbers": raw})
        expected = torch.sigmoid(net(torch.from_numpy(ids), torch.from_numpy(raw))).detach().numpy()
        assert scores.shape == (rows,)
        assert scores == pytest.approx(expected, abs=1e-5)


def test_stacked_and_full_rank_train_too():
    train = np.random.default_rng(0).normal(0, 1, (50, 2)).astype(np.float32)
    settings = NetworkSettings(
        embedding=4, cross_layers=2, cross_rank=0, hidden=(8, 4), dropout=0.0, structure="stacked"
    )
    net = net_of("dcn", settings, fields_of(train), train)
    net(torch.ones(3, 2, dtype=torch.int64), torch.randn(3, 2)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
