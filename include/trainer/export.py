"""A trained torch model as an ONNX graph with its pre-processing inside."""

import io
import warnings

import torch
from torch import Tensor, nn

from include.domain.encoding import Encoding

OPSET = 17


class Probability(nn.Module):
    """The model with the sigmoid that training keeps inside its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
        return torch.sigmoid(self.model(ids, numbers))


def graph(model: nn.Module, encoding: Encoding) -> bytes:
    """ids int64 `[batch, C]`, numbers float32 `[batch, N]` → score float32 `[batch]`; the batch may have any size.

    Traced rather than exported by torch.export: the same graph in half a second instead of ten, and the artifact's own
    check compares it with the model on every row of the test windows.
    """
    example = (torch.zeros(2, len(encoding.categorical), dtype=torch.int64), torch.zeros(2, len(encoding.numeric)))
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Probability(model).eval(), example, data, dynamo=False, opset_version=OPSET,  # type: ignore[arg-type]
            input_names=["ids", "numbers"], output_names=["score"],
            dynamic_axes={"ids": {0: "batch"}, "numbers": {0: "batch"}, "score": {0: "batch"}},
        )  # fmt: skip
    return data.getvalue()


def exporting() -> bool:
    """Whether the model is being written down as an ONNX graph, whose operators are few and plain."""
    return bool(torch.onnx.is_in_onnx_export())
