"""A small learnable dataset and a job for it, with the files the features stage would write."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.artifacts.dataset_manifest import DatasetColumns, DatasetManifest, SplitCounts, SplitWindows
from include.domain.features.encoding import Encoding, fit
from include.domain.training.job_settings import NetworkSettings
from include.trainer.job import Job, read

CATEGORIES, NUMBERS = ("shop", "part"), ("price", "age")
DAY = 86_400
START = 1_356_998_400  #: 2013-01-01
WINDOWS = SplitWindows(train=("2013-01-01", "2013-01-20"), validate=("2013-01-21",), test=("2013-01-22",))
MODEL = {"embedding": 4, "cross_layers": 2, "cross_rank": 4, "hidden": [16, 8], "dropout": 0.2, "first_order": 0.3}
TRAINING = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-2, "embedding_decay": 1.0, "ema": 0.9, "threads": 1}


def write_dataset(
    folder: Path,
    *,
    train: int = 1000,
    later: int = 300,
    classes: int = 2,
    one_class_in: str = "",
    weighted: bool = False,
    flipped: bool = False,
) -> Path:
    """Write a dataset of so many rows and return its `dataset.json`.

    `shop` and `price` decide the label, `age` is missing at times, `part` is noise. `weighted` gives every other train row
    the weight 0; `flipped` turns the labels of these over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(5)
    raw = {name: _raw(random, rows) for name, rows in (("train", train), ("validate", later), ("test", later))}
    encoding = fit(
        {**raw["train"][0]} if train else _raw(random, 9)[0],
        time="at",
        zone="UTC",
        time_parts=("hour",),
        categorical=CATEGORIES,
        numeric=NUMBERS,
        min_frequency=2,
    )
    files = {}
    for day, (name, (columns, labels)) in enumerate(raw.items()):
        one_class = classes == 1 or name == one_class_in
        arrays = _arrays(encoding, columns, np.zeros_like(labels) if one_class else labels, day)
        if weighted and name == "train":
            weights = np.arange(len(labels), dtype=np.float32) % 2 * 2
            arrays["weights"] = weights
            arrays["labels"] = np.where(weights == 0, 1 - labels, labels) if flipped else labels
        for array, values in arrays.items():
            path = folder / f"{name}.{array}.npy"
            np.save(path, values)
            files[path.name] = file_facts(path)
    for name, content in (("encoding.json", encoding.to_dict()), ("examples.json", _examples(raw["validate"][0]))):
        (folder / name).write_text(json.dumps(content))
        files[name] = file_facts(folder / name)
    counts = {name: len(labels) for name, (_, labels) in raw.items()}
    positives = {name: int(labels.sum()) for name, (_, labels) in raw.items()}
    manifest = DatasetManifest(
        model="toy",
        run="first",
        as_of="2013-01-23T00:00:00+00:00",
        table="features",
        table_version=3,
        sums_version=None,
        windows=WINDOWS,
        rows=SplitCounts(**counts),
        positives=SplitCounts(**positives),
        columns=DatasetColumns("at", "y", ("key",), CATEGORIES, NUMBERS),
        spec={},
        spec_digest="5" * 64,
        files=files,
    )
    store.write(folder / "dataset.json", manifest)
    return folder / "dataset.json"


def write_job(dataset: Path, out: Path, family: str = "dcn", **changes: Any) -> Path:
    """Write and return `job.json` in `out`.

    `changes` go to its sections `model` and `training`; `tracking` and `start` stand for themselves.
    """
    out.mkdir(parents=True, exist_ok=True)
    tracking, start = changes.pop("tracking", None), changes.pop("start", None)
    network = {field.name for field in fields(NetworkSettings)}
    content = {
        "dataset": {"uri": str(dataset), "digest": file_facts(dataset).sha256},
        "family": family,
        "model": {**MODEL, **{k: v for k, v in changes.items() if k in network}},
        "training": {**TRAINING, **{k: v for k, v in changes.items() if k not in network}},
        "seed": 17,
        "spec_digest": "5" * 64,
        "out": str(out),
        "tracking": tracking,
        "start": start,
    }
    (out / "job.json").write_text(json.dumps(content))
    return out / "job.json"


def make_job(dataset: Path, out: Path, family: str = "dcn", **changes: Any) -> Job:
    return read(write_job(dataset, out, family, **changes))


def _raw(random: np.random.Generator, rows: int) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Return the columns and the labels `[rows]`."""
    shop, part = random.integers(0, 12, rows), random.integers(0, 200, rows)
    price, age = random.lognormal(2, 1, rows), random.normal(40, 9, rows)
    age[random.random(rows) < 0.2] = np.nan
    labels = (random.random(rows) < 1 / (1 + np.exp(1.5 - 0.25 * shop - np.log(price / 7)))).astype(np.float32)
    columns = {
        "at": [START + int(h) for h in random.integers(0, DAY, rows)],
        "shop": shop.astype(str).tolist(),
        "part": part.astype(str).tolist(),
        "price": price,
        "age": age,
    }
    return columns, labels


def _arrays(
    encoding: Encoding, columns: dict[str, Any], labels: NDArray[np.float32], day: int
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a split by name; `day` 0 is the train split's first, 1 and 2 are the later splits'."""
    ids, numbers = encoding.encode(columns) if len(labels) else (np.zeros((0, 3)), np.zeros((0, 2)))
    times = START + 20 * DAY * (day > 0) + DAY * day + np.arange(len(labels), dtype=np.int64)
    return {"ids": ids.astype(np.int32), "numbers": numbers.astype(np.float32), "times": times, "labels": labels}


def _examples(columns: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: None if (v := values[i]) != v else v for name, values in columns.items()} for i in range(4)]
