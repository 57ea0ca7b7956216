"""The flights model that `bench-serve` serves: its artifact, its online store, and the rows that callers ask about."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from include.adapters.engines.duckdb import DuckDB
from include.adapters.tables.delta import DeltaTables
from include.artifacts.files import file_facts
from include.domain.features.encoding import Encoding, fit
from include.domain.windows import Window, parse_utc
from include.local import flights
from include.online_store.opening import open_store
from include.ports.tables import SUMS
from include.spec import loading, model_spec
from include.stages.features import aggregation
from include.trainer.data.dataset import Fields
from include.trainer.export.artifact import signature
from include.trainer.export.onnx_model import ProbabilityModel, write
from include.trainer.model.network import FieldEmbedding, Network, build_tower, embedding_width

ROWS = 5000


@dataclass(frozen=True)
class Prepared:
    """Rows as callers send them, encoded, and scored by torch."""

    rows: list[dict[str, Any]]
    ids: np.ndarray
    numbers: np.ndarray
    scores: np.ndarray


def prepare(home: Path) -> Prepared:
    """The artifact, the online store and the callers' bodies under `home`, and what they should be answered."""
    found = loading.find("flights")
    columns, aggregates = found.columns, found.features.aggregates.features
    past, asked = _with_aggregates(found, home)
    rows = asked.drop(aggregates).with_columns(pl.col(columns.time).dt.to_string("iso:strict")).to_dicts()
    encoding = fit(
        past.to_dict(as_series=False),
        time=columns.time,
        zone=columns.zone,
        time_parts=found.features.time_parts,
        categorical=columns.categorical,
        numeric=columns.numeric,
        min_frequency=found.features.min_frequency,
        looked_up=aggregates,
    )
    torch.manual_seed(found.training.seed)
    table = FieldEmbedding(encoding.sizes, 0.05 * torch.randn(sum(encoding.sizes), embedding_width("dcn", found.model)))
    tower = build_tower("dcn", found.model, Fields.of(encoding), encoding.encode(past.to_dict(as_series=False))[1])
    model = ProbabilityModel(Network(table, tower)).eval()
    ids, numbers = encoding.encode(asked.to_dict(as_series=False))
    with torch.no_grad():
        scores = model(torch.from_numpy(ids), torch.from_numpy(numbers)).numpy()
    _write_artifact(home / "artifact", encoding, model.model, rows[:64], found)
    (home / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return Prepared(rows, ids, numbers, scores)


def _with_aggregates(found: model_spec.ModelSpec, home: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The flights of the winter, and those that callers ask about; what was known of them lies in the online store."""
    rows = flights.recorded(flights.data_folder()).filter(
        pl.col("departure") < pl.datetime(2013, 4, 10, time_zone="UTC")
    )
    windows = list(Window(parse_utc("2013-01-01"), parse_utc("2013-04-10")).split(found.window))
    tables, days = DeltaTables(home / "tables"), rows["departure"].dt.date().cast(pl.String)
    content = {w: rows.filter(days == w.label).to_arrow(compat_level=pl.CompatLevel.oldest()) for w in windows}
    tables.replace("landed", content, "bench")
    aggregation.write_sums(found, windows, tables, DuckDB(), "bench")
    version = tables.version(SUMS) or 0
    open_store(str(home / "online"), found.name).land(aggregation.landed_sums(found, windows[80:], tables, version), "")
    known = aggregation.read_histories(found, tables, windows[0], windows[-1])
    whole = aggregation.with_aggregates(found, rows.drop(flights.OUTCOMES), known)
    asked = pl.col("departure") >= pl.datetime(2013, 4, 1, time_zone="UTC")
    return whole.filter(~asked), whole.filter(asked).head(ROWS)


def _write_artifact(
    folder: Path, encoding: Encoding, net: Network, examples: list[Any], found: model_spec.ModelSpec
) -> None:
    folder.mkdir()
    files = {
        "encoding.json": json.dumps(encoding.to_dict()).encode(),
        "examples.json": json.dumps(examples).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write(net, folder / "model.onnx")
    manifest = {
        "format": 1,
        "model": "flights",
        "family": "dcn",
        "run": "bench",
        "files": {n: asdict(file_facts(folder / n)) for n in (*files, "model.onnx")},
        "signature": signature(len(encoding.categorical), len(encoding.numeric)),
        "columns": {
            **found.columns.model_dump(mode="json"),
            "aggregates": found.features.model_dump(mode="json")["aggregates"],
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
