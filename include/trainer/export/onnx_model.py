"""A trained network as an ONNX graph with its pre-processing inside."""

import io
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from include.trainer.export import graph_files
from include.trainer.model.network import FieldEmbedding, Network

OPSET = 17
#: The table's name in the graph.
TABLE = "model.table.rows.weight"


class ProbabilityModel(nn.Module):
    """The model with the sigmoid that training has inside its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        return torch.sigmoid(self.model(ids, numbers))


def write(network: Network, path: Path) -> None:
    """Write ids int64 `[batch, C]`, numbers float32 `[batch, N]` → score float32 `[batch]`, for batches of any size.

    Traced rather than exported by torch.export: the same graph in half a second instead of ten, and the artifact's own
    check compares it with the model on every row of the test windows. What is traced has the table's first row alone, and
    an example that looks up no other.
    """
    rows = network.table.rows.weight.detach()
    traced = Network(FieldEmbedding([], rows[:1]), network.tower)
    traced.table.offsets = network.table.offsets
    example = (-network.table.offsets.expand(2, -1), torch.zeros(2, network.tower.scale.outputs // 2))
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            ProbabilityModel(traced).eval(),
            example,
            data,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["ids", "numbers"],
            output_names=["score"],
            dynamic_axes={"ids": {0: "batch"}, "numbers": {0: "batch"}, "score": {0: "batch"}},
        )
    graph_files.write(path, onnx.load_from_string(data.getvalue()), {TABLE: rows.numpy().data.cast("B")})
