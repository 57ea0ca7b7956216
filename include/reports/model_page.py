"""A model's page for people: who is champion and why, what its versions and rollouts showed, what the watch decided."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from urllib.parse import quote

from include.domain.events import StepAnalysed
from include.domain.rollout.actions import RolloutAction
from include.reports import html, rollout_page
from include.reports.html import ReportTable
from include.stages.rollout.state import RolloutState

#: So many rows and reports are shown, the newest first.
MAX_ROWS = 20
DAG_KINDS = ("data", "train", "rollout", "watch", "steer")


@dataclass(frozen=True)
class IndexEntry:
    """A model in the list of all: its name, its description, and a sentence that says who is champion."""

    name: str
    description: str
    champion: str


def index(entries: Sequence[IndexEntry]) -> str:
    """Return the page of all models."""
    rows = [
        f'<tr><td><a href="{quote(entry.name)}/">{escape(entry.name)}</a></td>'
        f"<td>{escape(entry.description)}</td><td>{escape(entry.champion)}</td></tr>"
        for entry in entries
    ]
    return html.document("Models", f"<table><tr><th>model<th>asks<th>champion</tr>{''.join(rows)}</table>")


def page(
    model: str,
    description: str,
    champion: str,
    state: RolloutState | None,
    analyses: Sequence[StepAnalysed],
    tables: Sequence[ReportTable],
    reports: Sequence[str],
) -> str:
    """Return the page of one model.

    `champion` is a sentence that says who it is. `analyses` are those of the rollout in `state`. `reports` are paths of pages
    below the model's folder of reports.
    """
    dags = [f'<a target="_top" href="/dags/{model}.{kind}">{kind}</a>' for kind in DAG_KINDS]
    links = [f'<li><a href="reports/{quote(path)}">{escape(path)}</a></li>' for path in reports]
    body = [
        f"<p>{escape(description)}</p><nav>{''.join(dags)}</nav>",
        f"<p><b>Champion</b>: {escape(champion)}</p><p><b>Rollout</b>: {escape(_standing(state, analyses))}</p>",
        _buttons(state),
        *rollout_page.charts(analyses).values(),
        *map(_table, tables),
        f"<h2>Reports</h2><ul>{''.join(links) or '<li>none yet</li>'}</ul>",
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


def report_paths(folder: Path) -> list[str]:
    """Return the pages below the folder that people open first: each site's index, and single pages, the newest first."""
    sites = {index.parent for index in folder.glob("**/index.html")}
    single = [page for page in folder.glob("**/*.html") if not any(page.is_relative_to(site) for site in sites)]
    pages = sorted([*(site / "index.html" for site in sites), *single], key=lambda page: -page.stat().st_mtime)
    return [str(page.relative_to(folder)) for page in pages[:MAX_ROWS]]


def _table(table: ReportTable) -> str:
    """Return the table with its title, the newest rows first."""
    newest_first = slice(None, -MAX_ROWS - 1, -1)
    newest = replace(table, rows=table.rows[newest_first], links=table.links[newest_first])
    return f"<h2>{escape(table.title)}</h2>{html.table(newest)}"
