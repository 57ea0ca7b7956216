"""The flights model that `bench-serve` serves: its artifact, its online store, and the rows that callers send."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from include.adapters.engines.duckdb import DuckDB
from include.adapters.tables.delta import DeltaTables
from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.domain.features.encoding import Encoding
from include.domain.windows import Window, parse_utc
from include.local import flights
from include.online_store.opening import open_store
from include.ports.tables import LANDED, SUMS
from include.spec import loading
from include.spec.model_spec import ModelSpec
from include.stages.features import aggregation
from include.stages.training.dataset import columns_of, fit_encoding
from include.trainer.data.dataset import Fields
from include.trainer.export.artifact import signature
from include.trainer.export.onnx_model import ProbabilityModel, write
from include.trainer.model.network import FieldEmbedding, Network, build_tower, embedding_width
from tests.records import model_manifest

ROWS = 5000


@dataclass(frozen=True)
class BenchRows:
    """Rows as callers send them, the same encoded (`ids` `[n, C]`, `numbers` `[n, N]`), and their scores by torch `[n]`."""

    rows: list[dict[str, Any]]
    ids: NDArray[np.int64]
    numbers: NDArray[np.float32]
    scores: NDArray[np.float32]


def prepare(home: Path) -> BenchRows:
    """Write the artifact, the online store and the callers' bodies under `home`, and return the rows with their right scores."""
    spec = loading.find("flights")
    past, requests = _with_aggregates(spec, home)
    raw = requests.drop(spec.features.aggregates.features)
    rows = raw.with_columns(pl.col(spec.columns.time).dt.to_string("iso:strict")).to_dicts()
    encoding = fit_encoding(spec, past)
    model = _untrained_model(spec, encoding, past)
    ids, numbers = encoding.encode(requests.to_dict(as_series=False))
    with torch.no_grad():
        scores = model(torch.from_numpy(ids), torch.from_numpy(numbers)).numpy()
    _write_artifact(home / "artifact", encoding, model.model, rows[:64], spec)
    (home / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return BenchRows(rows, ids, numbers, scores)


def _with_aggregates(spec: ModelSpec, home: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the flights of the winter and those of April, which callers send; the online store gets what was known of these."""
    before = pl.col("departure") < pl.datetime(2013, 4, 10, time_zone="UTC")
    rows = flights.recorded(flights.data_folder()).filter(before)
    windows = list(Window(parse_utc("2013-01-01"), parse_utc("2013-04-10")).split(spec.window))
    tables, days = DeltaTables(home / "tables"), rows["departure"].dt.date().cast(pl.String)
    content = {w: rows.filter(days == w.label).to_arrow(compat_level=pl.CompatLevel.oldest()) for w in windows}
    tables.replace(LANDED, content, "bench")
    aggregation.write_sums(spec, windows, tables, DuckDB(), "bench")
    version = tables.version(SUMS) or 0
    online = open_store(str(home / "online"), spec.name)
    online.land(aggregation.landed_sums(spec, windows[80:], tables, version), oldest="")
    histories = aggregation.read_histories(spec, tables, windows[0], windows[-1])
    features = aggregation.with_aggregates(spec, rows.drop(flights.OUTCOMES), histories)
    in_april = pl.col("departure") >= pl.datetime(2013, 4, 1, time_zone="UTC")
    return features.filter(~in_april), features.filter(in_april).head(ROWS)


def _untrained_model(spec: ModelSpec, encoding: Encoding, past: pl.DataFrame) -> ProbabilityModel:
    """Return the spec's DCN with its first, random weights."""
    torch.manual_seed(spec.training.seed)
    weights = 0.05 * torch.randn(sum(encoding.sizes), embedding_width("dcn", spec.model))
    numbers = encoding.encode(past.to_dict(as_series=False))[1]
    tower = build_tower("dcn", spec.model, Fields.of(encoding), numbers)
    return ProbabilityModel(Network(FieldEmbedding(encoding.sizes, weights), tower)).eval()


def _write_artifact(
    folder: Path, encoding: Encoding, network: Network, examples: Sequence[Mapping[str, Any]], spec: ModelSpec
) -> None:
    folder.mkdir()
    (folder / "encoding.json").write_text(json.dumps(encoding.to_dict()))
    (folder / "examples.json").write_text(json.dumps(examples))
    write(network, folder / "model.onnx")
    manifest = model_manifest(
        model=spec.name,
        run="bench",
        columns=columns_of(spec),
        signature=signature(len(encoding.categorical), len(encoding.numeric)),
        files={path.name: file_facts(path) for path in folder.iterdir()},
    )
    store.write(folder / "manifest.json", manifest)
