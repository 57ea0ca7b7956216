"""The blend: the mean of several models' probabilities, as one graph that every reader of an artifact takes for a model.

The mean is that of probabilities (the linear opinion pool, Stone 1961), not of log odds: by Jensen's inequality its
logloss is at most the mean of its parts', and on flights it was the lower of the two in three of four windows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import compose, helper

from include.trainer.export.trained_model import TrainedModel


def blend(models: Sequence[TrainedModel], folder: Path) -> TrainedModel:
    """Return the mean of the models, with all their weights and the time of them all; its graph goes into the folder."""
    graph = folder / "blend.onnx"
    graph.write_bytes(mean_graph([model.graph for model in models]))
    seconds = sum(model.seconds for model in models)
    samples = sum(model.samples_per_second * model.seconds for model in models)
    return TrainedModel(
        weights=[path for model in models for path in model.weights],
        graph=graph,
        test_scores=np.mean([model.test_scores for model in models], axis=0),
        seconds=seconds,
        samples_per_second=samples / max(seconds, 1e-9),
    )


def mean_graph(paths: Sequence[Path]) -> bytes:
    """Return one graph of several that have the same inputs; its score is the mean of theirs."""
    models = [compose.add_prefix(onnx.load(path), f"part{i}_", rename_inputs=False) for i, path in enumerate(paths)]
    mean = helper.make_node("Mean", [model.graph.output[0].name for model in models], ["score"])
    graph = helper.make_graph(
        [*(node for model in models for node in model.graph.node), mean],
        "blend",
        models[0].graph.input,
        [helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["batch"])],
        [tensor for model in models for tensor in model.graph.initializer],
    )
    opsets = {opset.domain: opset for model in models for opset in model.opset_import}
    model = helper.make_model(
        graph, opset_imports=list(opsets.values()), ir_version=max(model.ir_version for model in models)
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
