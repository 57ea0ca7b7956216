"""A warm start: what the champion learnt goes to the same category, whatever its ids are now."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from include.artifacts import store
from include.artifacts.atomic_write import file_facts
from include.domain.errors import Corrupt
from include.domain.features.encoding import Encoding
from include.trainer.job import WarmStart
from include.trainer.model.warm_start import ChampionWeights
from include.trainer.process import StopSignal
from include.trainer.run import run
from tests.records import model_manifest
from tests.small_dataset import make_job, write_dataset
from tests.unit.trainer.toys import manifest_of


def encoding(**vocabularies: list[str]) -> Encoding:
    ids = {field: {text: i for i, text in enumerate(texts, 2)} for field, texts in vocabularies.items()}
    return Encoding("at", "UTC", (), tuple(ids), ("x",), ids, {"x": (0.0, 1.0)})


OLD = encoding(shop=["a", "b"], part=["p"])  #: rows 0-3 are shop's, 4-6 part's


def champion(folder: Path) -> WarmStart:
    weights = {
        "table.rows.weight": torch.arange(7.0).reshape(7, 1).repeat(1, 2),
        "tower.scale.starts": torch.ones(1),
        "tower.head.weight": torch.full((1, 2), 5.0),
        "tower.head.bias": torch.full((1,), 6.0),
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "encoding.json").write_text(json.dumps(OLD.to_dict()))
    files = {name: file_facts(folder / name) for name in ("model.safetensors", "encoding.json")}
    manifest = store.write(folder / "manifest.json", model_manifest(files=files))
    return WarmStart(folder / "manifest.json", manifest.digest)


class Scale(nn.Module):
    starts: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("starts", torch.zeros(1))


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.scale = nn.Linear(2, 1), Scale()


def test_a_row_goes_to_the_category_of_its_text_and_a_new_category_starts_fresh(tmp_path: Path) -> None:
    new, weight = encoding(part=["q", "p"], shop=["b", "c", "a"]), torch.full((9, 2), -1.0)
    assert ChampionWeights(champion(tmp_path)).copy_rows(new, weight) == 7
    assert weight[:, 0].tolist() == [4, 5, -1, 6, 0, 1, 3, -1, 2]


def test_a_process_fills_its_share_of_the_rows(tmp_path: Path) -> None:
    weight = torch.full((3, 2), -1.0)
    assert ChampionWeights(champion(tmp_path)).copy_rows(OLD, weight, first=1, stride=2) == 3
    assert weight[:, 0].tolist() == [1, 3, 5]


def test_rows_of_another_width_start_fresh(tmp_path: Path) -> None:
    weight = torch.full((7, 3), -1.0)
    assert ChampionWeights(champion(tmp_path)).copy_rows(OLD, weight) == 0
    assert (weight == -1).all()


def test_the_tower_is_taken_over_but_not_its_scaling(tmp_path: Path) -> None:
    tower = Tower()
    assert ChampionWeights(champion(tmp_path)).copy_tower(encoding(shop=["z"], part=[]), tower)
    assert tower.head.weight.tolist() == [[5, 5]]
    assert tower.scale.starts.tolist() == [0]


def test_the_tower_starts_fresh_where_the_fields_are_others(tmp_path: Path) -> None:
    tower = Tower()
    before = tower.head.weight.clone()
    assert not ChampionWeights(champion(tmp_path)).copy_tower(encoding(shop=[]), tower)
    assert torch.equal(tower.head.weight, before)


def test_a_champion_that_was_changed_is_refused(tmp_path: Path) -> None:
    start = champion(tmp_path)
    (tmp_path / "encoding.json").write_text("{}")
    with pytest.raises(
        Corrupt, match=r"encoding.json: its SHA-256 is not the one in manifest.json; training.warm_start has nothing"
    ):
        ChampionWeights(start)


def test_a_training_that_hardly_moves_scores_as_its_champion_and_says_where_it_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data")
    still: dict[str, Any] = {"learning_rate": 1e-9, "epochs": 1, "embedding_decay": 0.0, "first_order": 1e-6}
    run(make_job(data, tmp_path / "first"), StopSignal())
    first = tmp_path / "first" / "manifest.json"
    start = {"uri": str(first), "digest": file_facts(first).sha256}
    run(make_job(data, tmp_path / "warm", start=start, **still), StopSignal())
    run(make_job(data, tmp_path / "cold", **still), StopSignal())
    logloss = {name: manifest_of(tmp_path / name).metrics.test.logloss for name in ("first", "warm", "cold")}
    assert logloss["warm"] == pytest.approx(logloss["first"], abs=1e-5)
    assert logloss["cold"] > logloss["first"] + 0.01
    assert "categories of the champion" in capsys.readouterr().out
