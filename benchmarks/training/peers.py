"""Train a peer of `make bench-train` on the arrays of one of our datasets, in the environment of the peers.

`python peers.py fuxictr|deepctr <dataset folder> <work folder> <epochs>`; the last line is one JSON object.
`python peers.py catboost <dataset folder> <work folder> <seed>` leaves its scores in the work folder.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

BATCH, EMBEDDING, CROSSES, HIDDEN, SEED, THREADS = 4096, 16, 3, (256, 128), 17, 2
SPLITS = ("train", "validate", "test")


class PeerDataset:
    """The arrays of a dataset by split: `ids` int64 `[n, C]`, `numbers` float32 `[n, N]` and `labels` `[n]`.

    Numbers are standardised by the mean and standard deviation of the train rows, and 0 where they are missing.
    """

    def __init__(self, folder: Path) -> None:
        encoding = json.loads((folder / "encoding.json").read_text())
        self.sizes = [2 + len(encoding["vocabulary"][field]) for field in encoding["categorical"]]
        arrays = {(s, p): np.load(folder / f"{s}.{p}.npy") for s in SPLITS for p in ("ids", "numbers", "labels")}
        train_numbers = np.ma.masked_invalid(arrays["train", "numbers"])
        mean, spread = train_numbers.mean(0).filled(0), np.maximum(train_numbers.std(0).filled(1), 1e-6)
        self.ids = {s: arrays[s, "ids"].astype(np.int64) for s in SPLITS}
        self.numbers = {s: np.nan_to_num((arrays[s, "numbers"] - mean) / spread).astype(np.float32) for s in SPLITS}
        self.labels = {s: arrays[s, "labels"] for s in SPLITS}
        self.fields = [f"c{i}" for i in range(len(self.sizes))] + [f"n{i}" for i in range(len(mean))]


class Batches:
    """A split as FuxiCTR's batches, cut from memory, which is faster than the loaders that it brings."""

    def __init__(self, data: PeerDataset, split: str, shuffle: bool) -> None:
        columns = [*data.ids[split].T, *data.numbers[split].T, data.labels[split]]
        self.columns = {n: torch.from_numpy(c.copy()) for n, c in zip([*data.fields, "label"], columns, strict=True)}
        self.rows, self.shuffle = len(data.labels[split]), shuffle

    def __len__(self) -> int:
        return (self.rows + BATCH - 1) // BATCH

    def __iter__(self) -> Any:
        order = torch.randperm(self.rows) if self.shuffle else torch.arange(self.rows)
        for part in order.split(BATCH):
            yield {name: column[part] for name, column in self.columns.items()}


def fuxictr(data: PeerDataset, work: Path, epochs: int) -> dict[str, Any]:
    """Train FuxiCTR's DCN-v2 in its own loop: Adam at 1e-3, numbers embedded too, the best epoch by validation AUC."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel
    from fuxictr.pytorch.torch_utils import seed_everything
    from torch import nn

    class DCNv2(BaseModel):  # type: ignore[misc]
        """The DCN-v2 of FuxiCTR's model zoo, cross layers beside an MLP, which its package leaves out."""

        def __init__(self, features: Any, **settings: Any) -> None:
            super().__init__(features, **settings)
            self.embedding_layer, width = FeatureEmbedding(features, EMBEDDING), features.sum_emb_out_dim()
            self.crossnet = CrossNetV2(width, CROSSES)
            self.deep = MLP_Block(width, hidden_units=list(HIDDEN))
            self.fc = nn.Linear(width + HIDDEN[-1], 1)
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()
            self.seconds = -time.perf_counter()

        def forward(self, inputs: Any) -> dict[str, Any]:
            x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
            return {"y_pred": self.output_activation(self.fc(torch.cat([self.crossnet(x), self.deep(x)], dim=-1)))}

        def eval_step(self) -> None:
            started_at = time.perf_counter()
            super().eval_step()
            self.seconds -= time.perf_counter() - started_at

    seed_everything(SEED)
    features = FeatureMap("bench", str(work))
    kinds: list[dict[str, Any]] = [{"type": "categorical", "vocab_size": size} for size in data.sizes]
    kinds += [{"type": "numeric"}] * (len(data.fields) - len(kinds))
    features.features.update({n: {"source": "", **k} for n, k in zip(data.fields, kinds, strict=True)})
    features.labels, features.default_emb_dim = ["label"], EMBEDDING
    features.set_column_index()
    model = DCNv2(
        features, model_id="dcnv2", gpu=-1, monitor="AUC", verbose=0, metrics=["AUC", "logloss"], model_root=str(work)
    )
    Path(model.model_dir).mkdir(parents=True, exist_ok=True)
    model.seconds = -time.perf_counter()
    model.fit(Batches(data, "train", True), epochs=epochs, validation_data=Batches(data, "validate", False))
    seconds = model.seconds + time.perf_counter()
    return {"steps": model._total_steps, "seconds": seconds, "scores": model.predict(Batches(data, "test", False))}


def deepctr(data: PeerDataset, _work: Path, epochs: int) -> dict[str, Any]:
    """Train DeepCTR-Torch's DCN with matrix cross layers, which is DCN-v2, in the way of its examples."""
    from deepctr_torch.inputs import DenseFeat, SparseFeat
    from deepctr_torch.models import DCN

    fields: list[Any] = [SparseFeat(n, size, EMBEDDING) for n, size in zip(data.fields, data.sizes, strict=False)]
    fields += [DenseFeat(n, 1) for n in data.fields[len(fields) :]]
    model = DCN(fields, fields, cross_num=CROSSES, cross_parameterization="matrix", dnn_hidden_units=HIDDEN, seed=SEED)
    model.compile("adam", "binary_crossentropy", metrics=[])
    tables = {s: np.concatenate([data.ids[s], data.numbers[s]], axis=1) for s in SPLITS}
    inputs = {s: dict(zip(data.fields, table.T, strict=True)) for s, table in tables.items()}
    started_at = time.perf_counter()
    model.fit(inputs["train"], data.labels["train"], batch_size=BATCH, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - started_at
    steps = epochs * -(-len(data.labels["train"]) // BATCH)
    return {"steps": steps, "seconds": seconds, "scores": model.predict(inputs["test"], BATCH).ravel()}


def catboost(folder: Path, work: Path, seed: int) -> None:
    """Train CatBoost with its own treatment of categories, and stop when the validation loss does not fall any more."""
    from catboost import CatBoostClassifier, Pool

    pools = {}
    for split in SPLITS:
        ids, numbers, labels = (np.load(folder / f"{split}.{part}.npy") for part in ("ids", "numbers", "labels"))
        features = {f"c{i}": column for i, column in enumerate(ids.T)} | {f"n{i}": c for i, c in enumerate(numbers.T)}
        pools[split] = Pool(pd.DataFrame(features), labels, cat_features=list(range(ids.shape[1])))
    model = CatBoostClassifier(
        iterations=600,
        learning_rate=0.08,
        depth=6,
        boosting_type="Plain",
        random_seed=seed,
        thread_count=int(os.environ.get("OMP_NUM_THREADS", "1")),
        allow_writing_files=False,
    )
    model.fit(pools["train"], eval_set=pools["validate"], early_stopping_rounds=50, verbose=False)
    for split in ("validate", "test"):
        np.save(work / f"catboost.{split}.npy", model.predict_proba(pools[split])[:, 1])


def main() -> None:
    """Train the peer that the arguments name, write its test scores, and print its speed."""
    peer, folder, work, epochs = sys.argv[1:]
    if peer == "catboost":
        return catboost(Path(folder), Path(work), int(epochs))
    torch.set_num_threads(THREADS)
    data = PeerDataset(Path(folder))
    result = {"fuxictr": fuxictr, "deepctr": deepctr}[peer](data, Path(work), int(epochs))
    np.save(Path(work) / f"{peer}.npy", result.pop("scores").astype(np.float64))
    rows = len(data.labels["train"])
    samples = result["steps"] / -(-rows // BATCH) * rows
    return print(json.dumps({"samples_per_second": samples / result["seconds"], "epochs": epochs}))


if __name__ == "__main__":
    main()
