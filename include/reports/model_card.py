"""The model card: one page on which a person can decide, from the evaluation and the gates' verdict on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.atomic_write import write_atomically
from include.artifacts.evaluation_record import EvaluationRecord
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.artifacts.verdict_record import VerdictRecord
from include.domain.evaluation.candidates import CHALLENGER, CHAMPION
from include.reports import html, plots
from include.reports.html import ReportTable
from include.reports.plots import ForestRow, PlotLine

METRICS = ("auc", "logloss", "ece")
CALIBRATION_BINS = 15
#: A person reads no more slices than this.
MAX_SLICES = 20

Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class CardSource:
    """What a card is made of. `cause` says why the model was trained."""

    record: EvaluationRecord
    verdict: VerdictRecord
    manifest: ModelManifest
    cause: str

    @property
    def title(self) -> str:
        """The card's title: the model, its family and the run that trained it."""
        return f"{self.record.model}, {self.manifest.family} of run {self.record.run}"


def write(evaluation: Reference, verdict: Reference, cause: str) -> list[Path]:
    """Write `card.md`, `card.html` and the plots beside the evaluation, and return their paths.

    `cause` says why the model was trained.
    """
    record, verdict_record = store.read(evaluation, EvaluationRecord), store.read(verdict, VerdictRecord)
    source = CardSource(record, verdict_record, store.read(record.challenger, ModelManifest), cause)
    folder = store.path_of(evaluation.uri).parent
    images = {**pictures(record, verdict_record, folder / "scores.npz"), **_learning_curves(source.manifest)}
    pages = {
        "card.md": "\n".join(_markdown_lines(source)),
        "card.html": _html(source, list(images.values())),
        **images,
    }
    for name, text in pages.items():
        write_atomically(folder / name, text)
    return [folder / name for name in pages]


def markdown_path(evaluation: Reference) -> Path:
    """Return the path of the evaluation's card in Markdown."""
    return store.path_of(evaluation.uri).with_name("card.md")


def pictures(record: EvaluationRecord, verdict: VerdictRecord, scores: Path) -> dict[str, str]:
    """Return SVG by file name: the ROC curves, the calibration, and the slices where there is a champion."""
    with np.load(scores, allow_pickle=False) as arrays:
        labels = arrays["labels"]
        candidates = {name: arrays[name] for name in record.metrics}
    images = {"roc.svg": _roc(labels, candidates), "calibration.svg": _calibration(labels, candidates)}
    if effects := verdict.slices[:MAX_SLICES]:
        rows = [ForestRow(f"{e.column}={e.value} ({e.rows:,})", e.worse_by, *e.interval) for e in effects]
        title, axis = "Slices: how much worse than the champion", "logloss, challenger less champion"
        images["slices.svg"] = plots.forest(title, axis, rows, verdict.slice_margin)
    return images


def _roc(labels: NDArray[np.float64], candidates: Scores) -> str:
    curves = []
    for name, scores in candidates.items():
        truth = labels[np.argsort(-scores, kind="stable")] > 0.5
        true_positives, false_positives = np.cumsum(truth), np.cumsum(~truth)
        if true_positives[-1] and false_positives[-1]:
            x, y = false_positives / false_positives[-1], true_positives / true_positives[-1]
            curves.append(PlotLine(name, np.r_[0, x], np.r_[0, y]))
    return plots.chart("ROC", ("false positive rate", "true positive rate"), curves, diagonal=True)


def _learning_curves(manifest: ModelManifest) -> dict[str, str]:
    """Return the plot of the batches' and the validate windows' loss over the steps, where there were several steps."""
    losses = {
        "batches": manifest.curves.get("loss", ()),
        "validate windows": manifest.curves.get("validate_logloss", ()),
    }
    curves = [PlotLine(name, *zip(*points, strict=True)) for name, points in losses.items() if len(points) > 1]
    return {"loss.svg": plots.chart("Loss", ("step", "logloss"), curves)} if curves else {}


def _calibration(labels: NDArray[np.float64], candidates: Scores) -> str:
    """Return the plot of the share of positives against the mean score in bins of equal count; on y = x it is calibrated."""
    curves = []
    for name, scores in candidates.items():
        bins = [part for part in np.array_split(np.argsort(scores, kind="stable"), CALIBRATION_BINS) if len(part)]
        curves.append(PlotLine(name, [scores[b].mean() for b in bins], [labels[b].mean() for b in bins]))
    return plots.chart("Calibration", ("mean score", "share of positives"), curves, diagonal=True)


def _markdown_lines(source: CardSource) -> Iterator[str]:
    yield f"# {source.title}: {source.verdict.outcome}"
    for sentence in _summary(source):
        yield f"\n{sentence}"
    for table in (_metrics(source.record), _checks(source.verdict), *_slices(source.verdict)):
        yield ""
        yield "| " + " | ".join(table.heads) + " |"
        yield "|---" * len(table.heads) + "|"
        yield from ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows)
    for sentence in _limits(source.record, source.manifest):
        yield f"\n{sentence}"


def _html(source: CardSource, images: Sequence[str]) -> str:
    body = [
        html.paragraphs(_summary(source)),
        html.table(_metrics(source.record)),
        *images,
        html.table(_checks(source.verdict)),
        html.paragraphs(_limits(source.record, source.manifest)),
    ]
    return html.document(source.title, "".join(body), outcome=source.verdict.outcome)


def _summary(source: CardSource) -> Iterator[str]:
    record, verdict = source.record, source.verdict
    yield record.description
    yield f"Why it was trained: {source.cause}."
    share = record.positives / max(record.rows, 1)
    yield (
        f"Trained on {_range(record.windows.train)}, tested on {_range(record.windows.test)}: "
        f"{record.rows:,} rows, {share:.1%} positive."
    )
    if not record.champion:
        yield "There is no champion yet: the absolute bounds and the baselines decide, and no slice is compared."
    if reasons := verdict.verdict.reasons:
        yield "What did not pass: " + "; ".join(reasons) + "."
        if verdict.released:
            yield "The gates run dry: the verdict is reported and holds nothing back."


def _metrics(record: EvaluationRecord) -> ReportTable:
    """Return the metrics of the challenger first, then the champion's, then the baselines'."""
    names = list(dict.fromkeys([*METRICS, *record.metrics[CHALLENGER]]))
    candidates = sorted(record.metrics, key=lambda name: (name != CHALLENGER, name != CHAMPION, name))
    titles = {CHAMPION: f"champion (version {record.champion})"}
    rows = [
        [titles.get(candidate, candidate), *(str(record.metrics[candidate].get(name, "–")) for name in names)]
        for candidate in candidates
    ]
    return ReportTable(["on the same test rows", *names], rows)


def _checks(verdict: VerdictRecord) -> ReportTable:
    rows = [[check.name, check.outcome, check.sentence] for check in verdict.checks]
    return ReportTable(["check", "outcome", "what was seen"], rows)


def _slices(verdict: VerdictRecord) -> list[ReportTable]:
    """Return what the forest plot draws, the most suspect first; no table where there was nothing to compare with."""
    rows = []
    for effect in verdict.slices[:MAX_SLICES]:
        lower, upper = effect.interval
        difference = f"{effect.worse_by:+.4f} ({lower:+.4f} to {upper:+.4f})"
        rows.append([f"{effect.column}={effect.value}", f"{effect.rows:,}", difference])
    return [ReportTable(["slice", "rows", "logloss, less the champion's"], rows)] if rows else []


def _limits(record: EvaluationRecord, manifest: ModelManifest) -> Iterator[str]:
    yield f"Features: {', '.join(manifest.columns.features)}."
    yield (
        f"Limits: it has seen nothing outside {_range(record.windows.train)}; values that were rare there count as "
        "unknown, and the metrics hold for traffic like that of the test windows."
    )
    yield (
        f"Seed {manifest.seed}, commit {manifest.git_commit}, table version {record.table_version}, "
        f"spec {record.spec_digest[:12]}, dataset {record.dataset.digest[:12]}."
    )


def _range(windows: Sequence[str]) -> str:
    if len(windows) < 2:
        return "".join(windows) or "nothing"
    return f"{windows[0]} to {windows[-1]} ({len(windows)} windows)"
