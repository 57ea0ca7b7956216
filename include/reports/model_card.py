"""The model card: one page on which a person can decide, from the evaluation and its verdict."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.artifacts import store
from include.artifacts.files import write_atomically
from include.artifacts.store import Reference
from include.domain.evaluation.gates import CHALLENGER, CHAMPION
from include.domain.verdict import Check
from include.reports import html, plots
from include.reports.plots import Effect, Line
from include.stages.evaluation.evaluation import Judged

METRICS = ("auc", "logloss", "ece")
CALIBRATION_BINS = 15
#: More slices than this are no longer read.
MAX_SLICES = 20

Scores = Mapping[str, NDArray[np.float64]]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def write(evaluation: Reference, judged: Judged, cause: str) -> list[Path]:
    """Write `card.md`, `card.html` and the plots beside the evaluation; their paths. `cause`: why there was a training."""
    record, verdict = store.read(evaluation), store.read(judged.record)
    folder = store.path_of(evaluation.uri).parent
    artifact = store.read(Reference(**record["models"][CHALLENGER]))
    drawn = {**pictures(record, verdict, folder / "scores.npz"), **_learning(artifact.get("curves", {}))}
    pages = {
        "card.md": "\n".join(_markdown(record, verdict, judged, artifact, cause)),
        "card.html": _html(record, judged, artifact, cause, list(drawn.values())),
        **drawn,
    }
    for name, text in pages.items():
        write_atomically(folder / name, text)
    return [folder / name for name in pages]


def markdown_of(evaluation: Reference) -> Path:
    return store.path_of(evaluation.uri).with_name("card.md")


def pictures(record: Mapping[str, Any], verdict: Mapping[str, Any], scores: Path) -> dict[str, str]:
    """SVG by file name: the ROC curves, the calibration, and the slices where there is a champion."""
    with np.load(scores, allow_pickle=False) as kept:
        labels = kept["labels"]
        candidates = {name: kept[name] for name in record["metrics"]}
    found = {"roc.svg": _roc(labels, candidates), "calibration.svg": _calibration(labels, candidates)}
    if effects := verdict["slices"][:MAX_SLICES]:
        rows = [Effect(f"{e['column']}={e['value']} ({e['rows']:,})", e["worse_by"], *e["interval"]) for e in effects]
        title, axis = "Slices: how much worse than the champion", "logloss, challenger less champion"
        found["slices.svg"] = plots.forest(title, axis, rows, verdict["slice_margin"])
    return found


def _roc(labels: NDArray[np.float64], candidates: Scores) -> str:
    lines = []
    for name, scores in candidates.items():
        truth = labels[np.argsort(-scores, kind="stable")] > 0.5
        hits, alarms = np.cumsum(truth), np.cumsum(~truth)
        if hits[-1] and alarms[-1]:
            lines.append(Line(name, np.r_[0, alarms / alarms[-1]], np.r_[0, hits / hits[-1]]))
    return plots.chart("ROC", ("false positive rate", "true positive rate"), lines, diagonal=True)


def _learning(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, str]:
    """The loss of the batches and of the validate windows over the steps, where there were several."""
    named = {"batches": curves.get("loss", ()), "validate windows": curves.get("validate_logloss", ())}
    lines = [Line(name, *zip(*points, strict=True)) for name, points in named.items() if len(points) > 1]
    return {"loss.svg": plots.chart("Loss", ("step", "logloss"), lines)} if lines else {}


def _calibration(labels: NDArray[np.float64], candidates: Scores) -> str:
    """Share of positives against mean score in bins of equal count, on the line y = x where the model is calibrated."""
    lines = []
    for name, scores in candidates.items():
        bins = [part for part in np.array_split(np.argsort(scores, kind="stable"), CALIBRATION_BINS) if len(part)]
        lines.append(Line(name, [scores[b].mean() for b in bins], [labels[b].mean() for b in bins]))
    return plots.chart("Calibration", ("mean score", "share of positives"), lines, diagonal=True)


def _markdown(
    record: Mapping[str, Any], verdict: Mapping[str, Any], judged: Judged, artifact: Mapping[str, Any], cause: str
) -> Iterator[str]:
    yield f"# {_title(record, artifact)}: {judged.verdict.outcome}"
    for sentence in _story(record, judged, cause):
        yield f"\n{sentence}"
    for heads, rows in (_metrics(record), _checks(judged), *_slices(verdict)):
        yield ""
        yield "| " + " | ".join(heads) + " |"
        yield "|---" * len(heads) + "|"
        yield from ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    for sentence in _limits(record, artifact):
        yield f"\n{sentence}"


def _html(
    record: Mapping[str, Any], judged: Judged, artifact: Mapping[str, Any], cause: str, drawn: Sequence[str]
) -> str:
    body = [
        html.paragraphs(_story(record, judged, cause)), html.table(*_metrics(record)), *drawn,
        html.table(*_checks(judged)), html.paragraphs(_limits(record, artifact)),
    ]  # fmt: skip
    return html.document(_title(record, artifact), "".join(body), outcome=judged.verdict.outcome)


def _title(record: Mapping[str, Any], artifact: Mapping[str, Any]) -> str:
    return f"{record['model']}, {artifact['family']} of run {record['run']}"


def _story(record: Mapping[str, Any], judged: Judged, cause: str) -> Iterator[str]:
    windows = record["windows"]
    yield record["description"]
    yield f"Why it was trained: {cause}."
    share = record["positives"] / max(record["rows"], 1)
    yield (
        f"Trained on {_span(windows['train'])}, tested on {_span(windows['test'])}: "
        f"{record['rows']:,} rows, {share:.1%} positive."
    )
    if not record["champion"]:
        yield "There is no champion yet: the absolute bounds and the baselines decide, and no slice is compared."
    if judged.verdict.reasons:
        yield "What did not pass: " + "; ".join(judged.verdict.reasons) + "."
    if judged.released and judged.verdict.reasons:
        yield "The gates run dry: the verdict is reported and holds nothing back."


def _metrics(record: Mapping[str, Any]) -> Table:
    """Challenger first, then the champion, then the baselines."""
    shown = list(dict.fromkeys([*METRICS, *record["metrics"][CHALLENGER]]))
    order = sorted(record["metrics"], key=lambda name: (name != CHALLENGER, name != CHAMPION, name))
    named = {CHAMPION: f"champion (version {record['champion']})"}
    rows = [[named.get(name, name), *(_cell(record["metrics"][name].get(m)) for m in shown)] for name in order]
    return ["on the same test rows", *shown], rows


def _checks(judged: Judged) -> Table:
    def row(check: Check) -> Sequence[str]:
        return [check.name, check.outcome, check.sentence]

    return ["check", "outcome", "what was seen"], [row(check) for check in judged.verdict.checks]


def _slices(verdict: Mapping[str, Any]) -> list[Table]:
    """What the forest plot draws, the most suspect first; no table where there was nothing to compare with."""
    rows = [
        [
            f"{e['column']}={e['value']}",
            f"{e['rows']:,}",
            f"{e['worse_by']:+.4f} ({e['interval'][0]:+.4f} to {e['interval'][1]:+.4f})",
        ]
        for e in verdict["slices"][:MAX_SLICES]
    ]
    return [(["slice", "rows", "logloss, less the champion's"], rows)] if rows else []


def _limits(record: Mapping[str, Any], artifact: Mapping[str, Any]) -> Iterator[str]:
    columns, windows = artifact["columns"], record["windows"]
    yield f"Features: {', '.join([*columns['categorical'], *columns['numeric']])}."
    yield (
        f"Limits: it has seen nothing outside {_span(windows['train'])}; values that were rare there count as unknown, "
        "and the metrics hold for traffic like that of the test windows."
    )
    yield (
        f"Seed {artifact['seed']}, commit {artifact['git_commit']}, table version {record['table_version']}, "
        f"spec {record['spec_digest'][:12]}, dataset {record['dataset']['digest'][:12]}."
    )


def _span(windows: Sequence[str]) -> str:
    if len(windows) < 2:
        return "".join(windows) or "nothing"
    return f"{windows[0]} to {windows[-1]} ({len(windows)} windows)"


def _cell(metric: Mapping[str, float] | None) -> str:
    return f"{metric['value']:.4f} ({metric['low']:.4f} to {metric['high']:.4f})" if metric else "–"
