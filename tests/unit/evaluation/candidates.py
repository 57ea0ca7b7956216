"""The toy model's candidates on the same test rows, for tests of evaluation, release and the model card."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.artifacts.dataset_manifest import SplitCounts, SplitWindows
from include.artifacts.store import Reference
from include.ports.registry import Version
from include.spec.model_spec import ModelSpec
from include.stages.evaluation import evaluation
from tests.fakes import FakeScorer, write_manifest
from tests.memory import MemoryTables
from tests.records import dataset_manifest
from tests.unit.toy import toy

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = 6000
#: What the serving check measures.
SERVED = {"score_gap": 0.0}
SPEC = toy(
    gates={
        "min_auc": 0.6,
        "baselines": ["logistic"],
        "slices": {"by": ["c"]},
        "behaviour": [{"column": "x", "add": 1.0, "expect": "rises"}],
    }
)


def sharp(columns: Any) -> NDArray[np.float64]:
    """Return the true probability."""
    return np.asarray(1 / (1 + np.exp(-np.nan_to_num(np.asarray(columns["x"], dtype=np.float64)))))


def blunt(columns: Any) -> NDArray[np.float64]:
    """Return scores that rank as the truth does and are all close to a half."""
    return 0.5 + 0.1 * (sharp(columns) - 0.5)


@dataclass
class Candidates:
    """The toy model's candidates, each a function of the raw columns, and the rows that they score."""

    folder: Path
    rows: pa.Table
    dataset: Reference
    models: dict[str, Reference]
    champion: Version
    scorer: FakeScorer

    @property
    def tables(self) -> MemoryTables:
        """The features table with these rows at version 0."""
        tables = MemoryTables()
        tables.append("features", self.rows, "landed", "once")
        return tables

    def evaluate(self, spec: ModelSpec = SPEC, champion: Version | None = None) -> Reference:
        """Evaluate the candidates, with a champion where one is given."""
        return evaluation.evaluate(
            spec, self.dataset, self.models, champion, tables=self.tables, scorer=self.scorer, folder=self.folder
        )


def make_candidates(folder: Path) -> Candidates:
    """Return a challenger that knows the truth, a baseline and a champion that hardly do, and 6,000 rows of two days."""
    random = np.random.default_rng(3)
    x = random.normal(size=ROWS)
    labels = (random.random(ROWS) < 1 / (1 + np.exp(-x))).astype(np.int8)
    at = [START + timedelta(minutes=int(m)) for m in random.integers(0, 2 * 24 * 60, ROWS)]
    rows = pa.table(
        {
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "key": [str(i) for i in range(ROWS)],
            "x": [None if i % 50 == 0 else v for i, v in enumerate(x)],
            "c": random.choice(np.array(["a", "b", None]), ROWS).tolist(),
            "y": pa.array([None if i < 10 else int(v) for i, v in enumerate(labels)], pa.int8()),
            "window": [t.strftime("%Y-%m-%d") for t in at],
        }
    )
    test_rows = sum(
        w == "2026-01-02" and y is not None
        for w, y in zip(rows["window"].to_pylist(), rows["y"].to_pylist(), strict=True)
    )
    encoding = folder / "dataset" / "encoding.json"
    store.write(encoding, {"vocabulary": {"c": {"a": 2, "b": 3, "gone": 4}}})
    manifest = dataset_manifest(
        files={encoding.name: file_facts(encoding)},
        rows=SplitCounts(ROWS, 0, test_rows),
        windows=SplitWindows(("2026-01-01",), (), ("2026-01-02",)),
    )
    dataset = store.write(folder / "dataset" / "dataset.json", manifest)
    names = {"challenger": "dcn", "logistic": "logistic", "champion": "old"}
    models = {name: write_manifest(folder / family, family, dataset, SPEC.digest) for name, family in names.items()}
    champion = Version("toy", "1", models.pop("champion"), {})
    scorer = FakeScorer({models["challenger"].uri: sharp, models["logistic"].uri: blunt, champion.artifact.uri: blunt})
    return Candidates(folder, rows, dataset, models, champion, scorer)
