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
OPSET, TREES_OPSET, IR_VERSION = 17, 5, 10


@dataclass
class TreeEnsemble:
    """The attributes of a TreeEnsemble node, filled tree by tree; a child is an index of a node or, flagged so, of a leaf."""

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
        """Add a tree as `Booster.dump_model()` describes it."""
        if "leaf_value" in tree:  # a tree without a split: one node whose sides are equal
            split = {"decision_type": "<=", "threshold": 0.0, "split_feature": 0, "default_left": True}
            tree = {**split, "missing_type": "NaN", "left_child": tree, "right_child": tree}
        self.roots.append(len(self.modes))
        self._add_node(tree)

    def to_node(self, inputs: str, outputs: str) -> NodeProto:
        """Return the graph's node, float32 `[batch, C + N]` → `[batch, 1]`."""

        def tensor(name: str, kind: int, values: list[Any]) -> TensorProto:
            return onnx.make_tensor(name, kind, [len(values)], values)

        members = {"membership_values": tensor("members", TensorProto.FLOAT, self.members)} if self.members else {}
        return onnx.make_node(
            "TreeEnsemble",
            [inputs],
            [outputs],
            domain="ai.onnx.ml",
            n_targets=1,
            aggregate_function=SUM,
            post_transform=NO_TRANSFORM,
            tree_roots=self.roots,
            nodes_modes=tensor("modes", TensorProto.UINT8, self.modes),
            nodes_featureids=self.features,
            nodes_splits=tensor("splits", TensorProto.FLOAT, self.splits),
            nodes_truenodeids=self.true_children,
            nodes_trueleafs=self.true_leaves,
            nodes_falsenodeids=self.false_children,
            nodes_falseleafs=self.false_leaves,
            nodes_missing_value_tracks_true=self.missing_true,
            leaf_targetids=[0] * len(self.leaves),
            leaf_weights=tensor("weights", TensorProto.FLOAT, self.leaves),
            **members,
        )

    def _add_node(self, node: Mapping[str, Any]) -> None:
        index = len(self.modes)
        categorical = node["decision_type"] == "=="
        self.modes.append(MEMBER if categorical else LESS_OR_EQUAL)
        self.features.append(node["split_feature"])
        self.splits.append(0.0 if categorical else float32_at_most(node["threshold"]))
        # A missing number goes where LightGBM learnt; where training held none it reads NaN as 0.
        missing_is_zero = node["missing_type"] == "None" and not categorical
        left = node["threshold"] >= 0.0 if missing_is_zero else node["default_left"]
        self.missing_true.append(int(left and not categorical))
        if categorical:
            self.members += [*map(float, str(node["threshold"]).split("||")), np.nan]
        for children, flags in (self.true_children, self.true_leaves), (self.false_children, self.false_leaves):
            children.append(0)
            flags.append(0)
        self.true_children[index], self.true_leaves[index] = self._add_child(node["left_child"])
        self.false_children[index], self.false_leaves[index] = self._add_child(node["right_child"])

    def _add_child(self, child: Mapping[str, Any]) -> tuple[int, int]:
        """Add a node or leaf; return its index, and 1 for a leaf."""
        if "leaf_value" in child:
            self.leaves.append(child["leaf_value"])
            return len(self.leaves) - 1, 1
        index = len(self.modes)
        self._add_node(child)
        return index, 0


def graph(dump: Mapping[str, Any], categorical: int, numeric: int) -> bytes:
    """Return `Booster.dump_model()` as ids int64 `[batch, C]`, numbers float32 `[batch, N]` → score float32 `[batch]`."""
    ensemble = TreeEnsemble()
    for tree in dump["tree_info"]:
        ensemble.add(tree["tree_structure"])
    nodes = [
        onnx.make_node("Cast", ["ids"], ["float_ids"], to=TensorProto.FLOAT),
        onnx.make_node("Concat", ["float_ids", "numbers"], ["table"], axis=1),
        ensemble.to_node("table", "margins"),
        onnx.make_node("Sigmoid", ["margins"], ["scores"]),
        onnx.make_node("Squeeze", ["scores", "one"], ["score"]),
    ]
    ids = onnx.make_tensor_value_info("ids", TensorProto.INT64, ["batch", categorical])
    numbers = onnx.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", numeric])
    score = onnx.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])
    one = onnx.make_tensor("one", TensorProto.INT64, [1], [1])
    opsets = [onnx.make_opsetid("", OPSET), onnx.make_opsetid("ai.onnx.ml", TREES_OPSET)]
    model: ModelProto = onnx.make_model(
        onnx.make_graph(nodes, "lightgbm", [ids, numbers], [score], [one]), opset_imports=opsets, ir_version=IR_VERSION
    )
    checker.check_model(model)
    return bytes(model.SerializeToString())


def float32_at_most(threshold: float) -> float:
    """Return the largest float32 not above the threshold: `x <= threshold` then holds for the same float32 x as before."""
    with np.errstate(over="ignore"):  # LightGBM writes 1.8e308 for a split that parts missing numbers from the others
        nearest = np.float32(threshold)
    return float(nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf)))
