"""A model's page for people: who is champion and why, what its versions and rollouts showed, what the watch decided."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from urllib.parse import quote

from include.domain.events import StepAnalysed
from include.domain.rollout.actions import RolloutAction
from include.reports import html, rollout_page
from include.reports.html import ReportTable
from include.stages.rollout.state import RolloutState

#: The newest rows come first, and no more than these are shown.
MOST = 20


def index(models: Sequence[tuple[str, str, str]]) -> str:
    """All models: name, description, and who is champion."""
    rows = [
        f'<tr><td><a href="{quote(name)}/">{escape(name)}</a></td><td>{escape(text)}</td><td>{escape(reign)}</td></tr>'
        for name, text, reign in models
    ]
    return html.document("Models", f"<table><tr><th>model<th>asks<th>champion</tr>{''.join(rows)}</table>")


def page(
    model: str, description: str, reign: str, state: RolloutState | None, analyses: Sequence[StepAnalysed],
    tables: Sequence[ReportTable], reports: Sequence[str],
) -> str:  # fmt: skip
    """One model; `analyses` are those of the rollout in `state`, `reports` paths of pages below its folder of reports."""
    dags = [
        f'<a target="_top" href="/dags/{model}.{f}">{f}</a>' for f in ("data", "train", "rollout", "watch", "steer")
    ]
    found = [f'<li><a href="reports/{quote(path)}">{escape(path)}</a></li>' for path in reports]
    body = [
        f"<p>{escape(description)}</p><nav>{''.join(dags)}</nav>",
        f"<p><b>Champion</b>: {escape(reign)}</p><p><b>Rollout</b>: {escape(_standing(state, analyses))}</p>",
        _buttons(state),
        *rollout_page.charts(analyses).values(),
        *map(_table, tables),
        f"<h2>Reports</h2><ul>{''.join(found) or '<li>none yet</li>'}</ul>",
    ]
    return html.document(model, "".join(body))


def _standing(state: RolloutState | None, analyses: Sequence[StepAnalysed]) -> str:
    """Return how the rollout ended, or the sentence of its last recorded analysis."""
    if state is None:
        return "none yet"
    reason = state.reason or (analyses[-1].sentence if analyses else "")
    return f"version {state.version}: {state.phase}" + (f"; {reason}" if reason else "")


def _buttons(state: RolloutState | None) -> str:
    """Return a form with a button for each action that is possible now, and a field for its reason."""
    running = state is not None and state.active
    actions = [action for action in RolloutAction if running or not action.needs_running_rollout]
    buttons = "".join(f'<button name="word" value="{action}">{action}</button>' for action in actions)
    return f'<form method="post" action="steer"><input name="reason" placeholder="why; kept in the ledger"> {buttons}</form>'


def reports(folder: Path) -> list[str]:
    """The pages that people open first, below the folder: each site's index, and single pages, the newest first."""
    pages = {site.parent for site in folder.glob("**/index.html")}
    alone = [p for p in folder.glob("**/*.html") if not any(p.is_relative_to(site) for site in pages)]
    found = sorted([*(site / "index.html" for site in pages), *alone], key=lambda p: -p.stat().st_mtime)
    return [str(p.relative_to(folder)) for p in found[:MOST]]


def _table(table: ReportTable) -> str:
    """Return the table with its title, the newest rows first."""
    newest_first = slice(None, -MOST - 1, -1)
    shown = replace(table, rows=table.rows[newest_first], links=table.links[newest_first])
    return f"<h2>{escape(table.title)}</h2>{html.table(shown)}"
