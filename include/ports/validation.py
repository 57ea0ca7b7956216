"""What judges a landed window."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from include.domain.verdict import Verdict


@dataclass(frozen=True)
class Profile:
    """A landed window in numbers, by name; None where one cannot be said (no earlier window, no label yet).

    `rows`, `label_rate`; against the last windows `volume` (ratio), `label_shift` (difference); `silence`: the part of
    the window after its last row; `nulls.<column>`; `unseen.<column>`: rows with a category that no last window had.
    """

    window: str
    measures: Mapping[str, float | None]


class Validator(Protocol):
    def validate(
        self, rows: Iterable[pa.Table], profiles: Sequence[Profile], run: str
    ) -> tuple[Mapping[str, Verdict], str]:
        """Judge landed windows, each by itself; verdicts by window label, and the URI of the page that shows them.

        A profile is a window's own numbers; `rows` are the windows' own, some whole windows at a time (column `window`), and
        read when they are asked for.
        """
