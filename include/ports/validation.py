"""What judges a landed window."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from include.domain.verdict import Verdict


@dataclass(frozen=True)
class Profile:
    """A landed window in numbers by name; None for one that cannot be computed (no earlier window, no label yet).

    `rows` and `label_rate` are the window's own. Compared with the windows before it, `volume` is the ratio of the rows and
    `label_shift` the difference of the label rates. `silence` is the share of the window after its last row,
    `nulls.<column>` the share of missing values, `unseen.<column>` the share of rows with a category that is new.
    """

    window: str
    measures: Mapping[str, float | None]


class Validator(Protocol):
    """Judges landed windows by their profiles and their rows."""

    def validate(
        self, rows: Iterable[pa.Table], profiles: Sequence[Profile], run: str
    ) -> tuple[Mapping[str, Verdict], str]:
        """Return a verdict on each window, by its label, and the URI of the page that shows them.

        `rows` yields the rows of some whole windows at a time, with a column `window`; they are read when they are needed.
        """
