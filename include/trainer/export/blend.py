"""The blend: the mean of several models' probabilities, as one graph that every reader of an artifact takes for a model.

The mean is that of probabilities (the linear opinion pool, Stone 1961), not of log odds: by Jensen's inequality its
logloss is at most the mean of its parts', and on flights it was the lower of the two in three of four windows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import compose, helper

from include.trainer.export.trained_model import Fitted


def of(parts: Sequence[Fitted], folder: Path) -> Fitted:
    """One result of several: their mean, whose graph goes into the folder, all their weights, and the time of them all."""
    whole = folder / "blend.onnx"
    whole.write_bytes(graph([part.graph for part in parts]))
    seconds = sum(part.seconds for part in parts)
    seen = sum(part.samples_per_second * part.seconds for part in parts)
    return Fitted(
        weights=[path for part in parts for path in part.weights],
        graph=whole,
        scores=np.mean([part.scores for part in parts], axis=0),
        seconds=seconds,
        samples_per_second=seen / max(seconds, 1e-9),
    )


def graph(parts: Sequence[Path]) -> bytes:
    """Graphs of the same inputs → one graph of these inputs, whose score is the mean of theirs."""
    models = [compose.add_prefix(onnx.load(part), f"part{i}_", rename_inputs=False) for i, part in enumerate(parts)]
    mean = helper.make_node("Mean", [model.graph.output[0].name for model in models], ["score"])
    whole = helper.make_graph(
        [*(node for model in models for node in model.graph.node), mean],
        "blend",
        models[0].graph.input,
        [helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["batch"])],
        [tensor for model in models for tensor in model.graph.initializer],
    )
    opsets = {opset.domain: opset for model in models for opset in model.opset_import}
    blended = helper.make_model(
        whole, opset_imports=list(opsets.values()), ir_version=max(model.ir_version for model in models)
    )
    onnx.checker.check_model(blended)
    return bytes(blended.SerializeToString())
