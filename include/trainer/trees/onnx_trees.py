"""LightGBM's trees as an ONNX graph: one TreeEnsemble (ai.onnx.ml 5) with set membership for categorical splits.

The usual converter turns each category of a split into a node of its own and copies the subtree below it, which makes
graphs too large to serve where fields have thousands of values. Thresholds are rounded down to float32, never up, so
that every row goes the way it went in training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker
from onnx import helper as onnx

LESS_OR_EQUAL, MEMBER = 0, 6  #: TreeEnsemble's node modes
SUM, NO_TRANSFORM = 1, 0
OPSET, TREES_OPSET, IR = 17, 5, 10


@dataclass
class Ensemble:
    """TreeEnsemble's attributes, filled tree by tree; a child is an index of a node or, flagged so, of a leaf."""

    roots: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    true_children: list[int] = field(default_factory=list)
    true_leaves: list[int] = field(default_factory=list)
    false_children: list[int] = field(default_factory=list)
    false_leaves: list[int] = field(default_factory=list)
    missing_true: list[int] = field(default_factory=list)
    members: list[float] = field(default_factory=list)  #: the sets of MEMBER nodes, each ended by NaN
    leaves: list[float] = field(default_factory=list)

    def add(self, tree: Mapping[str, Any]) -> None:
        if "leaf_value" in tree:  # a tree that found no split: one node whose sides are equal
            tree = {"decision_type": "<=", "threshold": 0.0, "split_feature": 0, "default_left": True,
                    "missing_type": "NaN", "left_child": tree, "right_child": tree}  # fmt: skip
        self.roots.append(len(self.modes))
        self._node(tree)

    def _node(self, node: Mapping[str, Any]) -> None:
        here = len(self.modes)
        categories = node["decision_type"] == "=="
        self.modes.append(MEMBER if categories else LESS_OR_EQUAL)
        self.features.append(node["split_feature"])
        self.splits.append(0.0 if categories else float32_at_most(node["threshold"]))
        # A missing number goes where LightGBM learnt; where it saw none in training it reads NaN as 0.
        as_zero = node["missing_type"] == "None" and not categories
        left = node["threshold"] >= 0.0 if as_zero else node["default_left"]
        self.missing_true.append(int(left and not categories))
        if categories:
            self.members += [*map(float, str(node["threshold"]).split("||")), np.nan]
        for children, flags in (self.true_children, self.true_leaves), (self.false_children, self.false_leaves):
            children.append(0)
            flags.append(0)
        self.true_children[here], self.true_leaves[here] = self._child(node["left_child"])
        self.false_children[here], self.false_leaves[here] = self._child(node["right_child"])

    def _child(self, child: Mapping[str, Any]) -> tuple[int, int]:
        if "leaf_value" in child:
            self.leaves.append(child["leaf_value"])
            return len(self.leaves) - 1, 1
        index = len(self.modes)
        self._node(child)
        return index, 0

    def node(self, inputs: str, outputs: str) -> NodeProto:
        def tensor(name: str, kind: int, values: list[Any]) -> TensorProto:
            return onnx.make_tensor(name, kind, [len(values)], values)

        members = {"membership_values": tensor("members", TensorProto.FLOAT, self.members)} if self.members else {}
        return onnx.make_node(
            "TreeEnsemble", [inputs], [outputs], domain="ai.onnx.ml", n_targets=1, aggregate_function=SUM,
            post_transform=NO_TRANSFORM, tree_roots=self.roots,
            nodes_modes=tensor("modes", TensorProto.UINT8, self.modes),
            nodes_featureids=self.features, nodes_splits=tensor("splits", TensorProto.FLOAT, self.splits),
            nodes_truenodeids=self.true_children, nodes_trueleafs=self.true_leaves,
            nodes_falsenodeids=self.false_children, nodes_falseleafs=self.false_leaves,
            nodes_missing_value_tracks_true=self.missing_true, leaf_targetids=[0] * len(self.leaves),
            leaf_weights=tensor("weights", TensorProto.FLOAT, self.leaves), **members,
        )  # fmt: skip


def graph(dump: Mapping[str, Any], categorical: int, numeric: int) -> bytes:
    """`Booster.dump_model()` → ids int64 `[batch, C]`, numbers float32 `[batch, N]` → score float32 `[batch]`."""
    ensemble = Ensemble()
    for tree in dump["tree_info"]:
        ensemble.add(tree["tree_structure"])
    nodes = [
        onnx.make_node("Cast", ["ids"], ["float_ids"], to=TensorProto.FLOAT),
        onnx.make_node("Concat", ["float_ids", "numbers"], ["table"], axis=1),
        ensemble.node("table", "margins"),
        onnx.make_node("Sigmoid", ["margins"], ["scores"]),
        onnx.make_node("Squeeze", ["scores", "one"], ["score"]),
    ]
    inputs = [onnx.make_tensor_value_info("ids", TensorProto.INT64, ["batch", categorical]),
              onnx.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", numeric])]  # fmt: skip
    output = onnx.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])
    one = onnx.make_tensor("one", TensorProto.INT64, [1], [1])
    whole = onnx.make_graph(nodes, "lightgbm", inputs, [output], [one])
    opsets = [onnx.make_opsetid("", OPSET), onnx.make_opsetid("ai.onnx.ml", TREES_OPSET)]
    model: ModelProto = onnx.make_model(whole, opset_imports=opsets, ir_version=IR)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def float32_at_most(threshold: float) -> float:
    """The largest float32 not above it: `x <= threshold` then holds for the same float32 x as before."""
    with np.errstate(over="ignore"):  # LightGBM writes 1.8e308 for a split that parts known from missing
        nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))
