"""Warm start: training goes on from what the champion learnt, where it still means the same.

Each training fits an encoding of its own, so a category's row is found by its text, not by its id; a category that is new
to the champion starts fresh. Scaling is fitted anew, and the tower above is taken over where the fields are the same.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from include.artifacts import store
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain.errors import Corrupt
from include.domain.features.encoding import MISSING, UNKNOWN, Encoding
from include.trainer.data.dataset import read_encoding
from include.trainer.job import WarmStart
from include.trainer.tracking.tracker import Tracker

WEIGHTS_FILE, ENCODING_FILE = "model.safetensors", "encoding.json"
#: Keys of the weights file.
TABLE, TOWER, SCALE = "table.rows.weight", "tower.", "scale."
RowIds = NDArray[np.int64]


def load_champion(
    start: WarmStart, encoding: Encoding, tower: nn.Module, weight: Tensor, first: int, stride: int, tracker: Tracker
) -> None:
    """Copy the champion's weights where they fit, and log how far they did.

    `weight` `[n, width]` is every `stride`-th row of the embedding table from row `first` on.
    """
    champion = ChampionWeights(start)
    copied = champion.copy_rows(encoding, weight, first, stride)
    above = "fields or shapes differ, so the layers above start fresh"
    if champion.copy_tower(encoding, tower):
        above = "the layers above are its own"
    tracker.log(f"going on from {copied} of {len(weight)} categories of the champion; {above}")


class ChampionWeights:
    """The weights and the encoding of the artifact to start from. Raises Corrupt when a digest differs."""

    def __init__(self, start: WarmStart) -> None:
        try:
            manifest = store.read(Reference(str(start.manifest), start.digest), ModelManifest)
            for name in (WEIGHTS_FILE, ENCODING_FILE):
                if name not in manifest.files:
                    raise Corrupt(f"{start.manifest}: it lists no {name}")
                store.check_files(start.manifest, {name: manifest.files[name]})
        except Corrupt as error:
            raise Corrupt(f"{error}; training.warm_start has nothing to go on") from None
        self.weights = load_file(start.manifest.with_name(WEIGHTS_FILE))
        self.encoding = read_encoding(start.manifest.with_name(ENCODING_FILE))

    @torch.no_grad()
    def copy_rows(self, encoding: Encoding, weight: Tensor, first: int = 0, stride: int = 1) -> int:
        """Copy the rows of the categories that both encodings have into `weight`; return how many these are.

        `weight` `[n, width]` is every `stride`-th row of the new table from row `first` on.
        """
        table = self.weights[TABLE]
        if table.shape[1] != weight.shape[1]:
            return 0
        old, new = (np.concatenate(rows) for rows in zip(*_shared_rows(self.encoding, encoding), strict=True))
        own = new % stride == first
        weight[torch.from_numpy(new[own] // stride)] = table[torch.from_numpy(old[own])].to(weight.device)
        return int(own.sum())

    @torch.no_grad()
    def copy_tower(self, encoding: Encoding, tower: nn.Module) -> bool:
        """Copy all weights above the table but the scaling; False, and none is copied, where fields or shapes differ."""
        same_fields = (self.encoding.categorical, self.encoding.numeric) == (encoding.categorical, encoding.numeric)
        old = {name.removeprefix(TOWER): value for name, value in self.weights.items() if name.startswith(TOWER)}
        new = {name: value for name, value in tower.state_dict().items() if not name.startswith(SCALE)}
        if not same_fields or any(name not in old or old[name].shape != value.shape for name, value in new.items()):
            return False
        for name, value in new.items():
            value.copy_(old[name])
        return True


def _shared_rows(old: Encoding, new: Encoding) -> Iterator[tuple[RowIds, RowIds]]:
    """Yield, for each field that both have, the table rows of the same categories in the old table and in the new."""
    offsets = [dict(zip(e.categorical, np.cumsum([0, *e.sizes[:-1]]).tolist(), strict=True)) for e in (old, new)]
    for field in (f for f in new.categorical if f in old.categorical):
        old_ids = old.vocabulary[field]
        pairs = [(MISSING, MISSING), (UNKNOWN, UNKNOWN)]
        pairs += [(old_ids[text], i) for text, i in new.vocabulary[field].items() if text in old_ids]
        ids = np.array(pairs, dtype=np.int64)
        yield ids[:, 0] + offsets[0][field], ids[:, 1] + offsets[1][field]
