"""A small learnable dataset and a job for it, with the files the features stage would write."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.domain.features import encoding
from include.trainer.job import Job, read

CATEGORIES, NUMBERS = ("shop", "part"), ("price", "age")
DAY = 86_400
START = 1_356_998_400  #: 2013-01-01
WINDOWS = {"train": ["2013-01-01", "2013-01-20"], "validate": ["2013-01-21"], "test": ["2013-01-22"]}
MODEL = {"embedding": 4, "cross_layers": 2, "cross_rank": 4, "hidden": [16, 8], "dropout": 0.2, "first_order": 0.3}
TRAINING = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-2, "embedding_decay": 1.0, "ema": 0.9, "threads": 1}


def write_dataset(
    folder: Path, *, train: int = 1000, later: int = 300, classes: int = 2, one_class_in: str = "",
    weigh: bool = False, turned: bool = False,
) -> Path:  # fmt: skip
    """`dataset.json` of so many rows; `shop` and `price` decide the label, `age` is missing at times, `part` is noise.

    `weigh` gives every other train row the weight 0; `turned` turns the labels of these over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(5)
    raw = {name: _raw(random, rows) for name, rows in (("train", train), ("validate", later), ("test", later))}
    fitted = encoding.fit(
        {**raw["train"][0]} if train else _raw(random, 9)[0], time="at", zone="UTC", time_parts=("hour",),
        categorical=CATEGORIES, numeric=NUMBERS, min_frequency=2,
    )  # fmt: skip
    files = {}
    for day, (name, (columns, labels)) in enumerate(raw.items()):
        ids, numbers = fitted.encode(columns) if len(labels) else (np.zeros((0, 3)), np.zeros((0, 2)))
        times = START + 20 * DAY * (day > 0) + DAY * day + np.arange(len(labels), dtype=np.int64)
        parts = {"ids": ids.astype(np.int32), "numbers": numbers.astype(np.float32), "times": times,
                 "labels": np.zeros_like(labels) if classes == 1 or name == one_class_in else labels}  # fmt: skip
        if weigh and name == "train":
            parts["weights"] = np.arange(len(labels), dtype=np.float32) % 2 * 2
            parts["labels"] = np.where(parts["weights"] == 0, 1 - labels, labels) if turned else labels
        for part, array in parts.items():
            np.save(folder / f"{name}.{part}.npy", array)
            files[f"{name}.{part}.npy"] = _facts(folder / f"{name}.{part}.npy")
    for name, content in (("encoding.json", fitted.to_dict()), ("examples.json", _examples(raw["validate"][0]))):
        (folder / name).write_text(json.dumps(content))
        files[name] = _facts(folder / name)
    record = {
        "format": 1, "model": "toy", "run": "first", "table": "features", "table_version": 3, "windows": WINDOWS,
        "columns": {"time": "at", "label": "y", "keys": ["key"], "categorical": CATEGORIES, "numeric": NUMBERS},
        "spec_digest": "5" * 64, "files": files,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(record))
    return folder / "dataset.json"


def write_job(dataset: Path, out: Path, family: str = "dcn", **changes: Any) -> Path:
    """`job.json` in `out`; `changes` go to its sections `model` and `training`, `tracking` and `start` stand for themselves."""
    out.mkdir(parents=True, exist_ok=True)
    tracking, start = changes.pop("tracking", None), changes.pop("start", None)
    shape = (*MODEL, "structure", "experts", "numbers", "serve")
    content = {
        "dataset": {"uri": str(dataset), "digest": str(_facts(dataset)["sha256"])},
        "family": family,
        "model": {**MODEL, **{k: v for k, v in changes.items() if k in shape}},
        "training": {**TRAINING, **{k: v for k, v in changes.items() if k not in shape}},
        "seed": 17, "spec_digest": "5" * 64, "out": str(out), "tracking": tracking, "start": start,
    }  # fmt: skip
    (out / "job.json").write_text(json.dumps(content))
    return out / "job.json"


def job(dataset: Path, out: Path, family: str = "dcn", **changes: Any) -> Job:
    return read(write_job(dataset, out, family, **changes))


def _raw(random: np.random.Generator, rows: int) -> tuple[dict[str, Any], NDArray[np.float32]]:
    shop, part = random.integers(0, 12, rows), random.integers(0, 200, rows)
    price, age = random.lognormal(2, 1, rows), random.normal(40, 9, rows)
    age[random.random(rows) < 0.2] = np.nan
    labels = (random.random(rows) < 1 / (1 + np.exp(1.5 - 0.25 * shop - np.log(price / 7)))).astype(np.float32)
    columns = {"at": [START + int(h) for h in random.integers(0, DAY, rows)], "shop": shop.astype(str).tolist(),
               "part": part.astype(str).tolist(), "price": price, "age": age}  # fmt: skip
    return columns, labels


def _examples(columns: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: None if (v := values[i]) != v else v for name, values in columns.items()} for i in range(4)]


def _facts(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
