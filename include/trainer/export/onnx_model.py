"""A trained torch model as an ONNX graph with its pre-processing inside."""

import io
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from include.trainer.export import graph_files
from include.trainer.model.network import Net, Table

OPSET = 17
TABLE = "model.table.rows.weight"


class Probability(nn.Module):
    """The model with the sigmoid that training keeps inside its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        return torch.sigmoid(self.model(ids, numbers))


def write(net: Net, path: Path) -> None:
    """ids int64 `[batch, C]`, numbers float32 `[batch, N]` → score float32 `[batch]`; the batch may have any size.

    Traced rather than exported by torch.export: the same graph in half a second instead of ten, and the artifact's own
    check compares it with the model on every row of the test windows. What is traced has the table's first row alone, and
    an example that asks for no other.
    """
    rows = net.table.rows.weight.detach()
    small = Net(Table([], rows[:1]), net.tower)
    small.table.offsets = net.table.offsets
    example = (-net.table.offsets.expand(2, -1), torch.zeros(2, net.tower.scale.outputs // 2))
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Probability(small).eval(), example, data, dynamo=False, opset_version=OPSET,  # type: ignore[arg-type]
            input_names=["ids", "numbers"], output_names=["score"],
            dynamic_axes={"ids": {0: "batch"}, "numbers": {0: "batch"}, "score": {0: "batch"}},
        )  # fmt: skip
    graph_files.write(path, onnx.load_from_string(data.getvalue()), {TABLE: rows.numpy().data.cast("B")})
