"""The layers against the equations of DCN-v2, values and gradients."""

import pytest
import torch

from include.trainer.model.layers import CrossLayer, CrossNetwork, HiddenLayer, LowRankCrossLayer
from tests.unit.trainer.toys import same_gradients


@pytest.mark.parametrize("grad_columns", [0, 2, 3])
def test_cross_layers_are_equation_one_each_and_their_gradient_that_equations(grad_columns: int) -> None:
    layers = [CrossLayer(3) for _ in range(3)]
    network = CrossNetwork(layers)
    own, data = torch.randn(5, grad_columns, requires_grad=True), torch.randn(5, 3 - grad_columns)
    x0 = expected = torch.cat([own, data], dim=1)
    for layer in layers:
        expected = x0 * (expected @ layer.linear.weight.T + layer.linear.bias) + expected
    output = network(x0, grad_columns)
    assert torch.allclose(output, expected, atol=1e-5)
    assert same_gradients(output, expected, [own, *network.parameters()])


@pytest.mark.parametrize("grad_columns", [0, 4, 6])
def test_dropout_keeps_units_by_their_bytes_and_their_mean(grad_columns: int) -> None:
    layer = HiddenLayer(6, 32, 0.25)
    own = torch.randn(64, grad_columns, requires_grad=True)
    dropout_bytes = torch.randint(0, 256, (64, 32), dtype=torch.uint8)
    x = torch.cat([own, torch.randn(64, 6 - grad_columns)], dim=1)
    expected = torch.relu(x @ layer.weight.T + layer.bias) * (dropout_bytes >= 64) / 0.75
    output = layer(x, dropout_bytes, grad_columns)
    assert torch.allclose(output, expected, atol=1e-5)
    assert same_gradients(output, expected, [own, layer.weight, layer.bias])


def test_low_rank_cross_layer_is_equation_two() -> None:
    layer, x0, x = LowRankCrossLayer(6, 2, 1), torch.randn(5, 6), torch.randn(5, 6)
    weights = layer.state_dict()
    low_rank = x @ weights["down.0.weight"].T
    expected = x0 * (low_rank @ weights["up.0.weight"].T + weights["up.0.bias"]) + x
    assert torch.allclose(layer(x0, x), expected, atol=1e-6)


def test_mixture_of_equal_experts_is_one_of_them() -> None:
    layer, x0, x = LowRankCrossLayer(6, 2, 3), torch.randn(5, 6), torch.randn(5, 6)
    for experts in (layer.down, layer.up, layer.middle):
        for expert in experts[1:]:
            expert.load_state_dict(experts[0].state_dict())
    inner = torch.tanh(layer.middle[0](torch.tanh(layer.down[0](x))))
    assert torch.allclose(layer(x0, x), x0 * layer.up[0](inner) + x, atol=1e-6)
