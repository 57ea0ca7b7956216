"""Warm start: training goes on from what the champion learnt, where it still means the same.

Each training fits an encoding of its own, so a category's row is found by its text, not by its id; a category that the
champion did not know starts fresh. Scaling is fitted anew, and the tower above is taken over where the fields are the same.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from include.domain.errors import Corrupt
from include.domain.features.encoding import MISSING, UNKNOWN, Encoding
from include.trainer.data.dataset import encoding as read_encoding
from include.trainer.files import facts
from include.trainer.job import Start
from include.trainer.tracking.tracker import Tracker

TABLE, TOWER, SCALE = "table.rows.weight", "tower.", "scale."
Numbers = NDArray[np.int64]


def begin(
    start: Start, encoding: Encoding, tower: nn.Module, weight: Tensor, row: int, stride: int, tracker: Tracker
) -> None:
    """Put the champion's weights where they fit, and say how far they did.

    `weight` `[n, width]` holds every `stride`-th row of the embedding table from `row` on.
    """
    champion = Champion(start)
    found = champion.give_rows(encoding, weight, row, stride)
    taken = champion.give_tower(encoding, tower)
    above = "the layers above are its own" if taken else "fields or shapes differ, so the layers above start fresh"
    tracker.say(f"going on from {found} of {len(weight)} categories of the champion; {above}")


class Champion:
    """The weights and the encoding of the artifact to start from. Raises Corrupt when a digest differs."""

    def __init__(self, start: Start) -> None:
        if facts(start.manifest)["sha256"] != start.digest:
            raise Corrupt(
                f"{start.manifest}: its SHA-256 is not the champion's; training.warm_start has nothing to go on"
            )
        manifest = json.loads(start.manifest.read_text(encoding="utf-8"))
        weights, encoding = (self._checked(start.manifest, manifest, n) for n in ("model.safetensors", "encoding.json"))
        self.weights = load_file(weights)
        self.encoding = read_encoding(encoding)

    @torch.no_grad()
    def give_rows(self, encoding: Encoding, weight: Tensor, row: int = 0, stride: int = 1) -> int:
        """Fill the rows of known categories into a table, of which `weight` holds every `stride`-th from `row` on; how many."""
        known = self.weights[TABLE]
        if known.shape[1] != weight.shape[1]:
            return 0
        old, new = (np.concatenate(part) for part in zip(*_shared(self.encoding, encoding), strict=True))
        own = new % stride == row
        weight[torch.from_numpy(new[own] // stride)] = known[torch.from_numpy(old[own])].to(weight.device)
        return int(own.sum())

    @torch.no_grad()
    def give_tower(self, encoding: Encoding, tower: nn.Module) -> bool:
        """Fill in all weights above the table; whether the fields and shapes allow it."""
        fields = (self.encoding.categorical, self.encoding.numeric) == (encoding.categorical, encoding.numeric)
        learnt = {n.removeprefix(TOWER): w for n, w in self.weights.items() if n.startswith(TOWER)}
        wanted = {name: held for name, held in tower.state_dict().items() if not name.startswith(SCALE)}
        if not fields or any(name not in learnt or learnt[name].shape != held.shape for name, held in wanted.items()):
            return False
        for name, held in wanted.items():
            held.copy_(learnt[name])
        return True

    @staticmethod
    def _checked(manifest: Path, content: dict[str, dict[str, object]], name: str) -> Path:
        path = manifest.with_name(name)
        if name not in content["files"] or facts(path) != content["files"][name]:
            raise Corrupt(f"{path}: not what the champion's manifest says; training.warm_start has nothing to go on")
        return path


def _shared(old: Encoding, new: Encoding) -> Iterator[tuple[Numbers, Numbers]]:
    """Of each field that both have: table rows of the same categories in the one and in the other."""
    starts = [dict(zip(e.categorical, np.cumsum([0, *e.sizes[:-1]]).tolist(), strict=True)) for e in (old, new)]
    for field in (f for f in new.categorical if f in old.categorical):
        known = old.vocabulary[field]
        pairs = [(MISSING, MISSING), (UNKNOWN, UNKNOWN)]
        pairs += [(known[text], i) for text, i in new.vocabulary[field].items() if text in known]
        ids = np.array(pairs, dtype=np.int64)
        yield ids[:, 0] + starts[0][field], ids[:, 1] + starts[1][field]
