"""A model's page for people: who is champion and why, what its versions and rollouts showed, what the watch decided."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from include.stages.standing import Table

STYLE = (
    "body{font:14px/1.45 system-ui;margin:1.5em auto;max-width:80em;padding:0 1em;color:#222}table{border-collapse:collapse;"
    "margin:.5em 0 1.5em}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left;vertical-align:top}"
    ".pass,.yes{color:#00704a}.fail,.error{color:#b3261e}.inconclusive{color:#8a6100}nav a{margin-right:1.2em}"
)
#: The newest rows come first, and no more than these are shown.
MOST = 20


def index(models: Sequence[tuple[str, str, str]]) -> str:
    """All models: name, description, and who is champion."""
    rows = [
        f'<tr><td><a href="{quote(name)}/">{escape(name)}</a></td><td>{escape(text)}</td><td>{escape(reign)}</td></tr>'
        for name, text, reign in models
    ]
    return _page("Models", f"<table><tr><th>model<th>asks<th>champion</tr>{''.join(rows)}</table>")


def page(
    model: str, description: str, reign: str, rollout: str, tables: Sequence[Table], reports: Sequence[str]
) -> str:
    """One model; `reports` are paths of pages below its folder of reports."""
    dags = [
        f'<a target="_top" href="/dags/{model}.{f}">{f}</a>' for f in ("data", "train", "rollout", "watch", "steer")
    ]
    found = [f'<li><a href="reports/{quote(path)}">{escape(path)}</a></li>' for path in reports]
    body = [
        f"<p>{escape(description)}</p><nav>{''.join(dags)}</nav>",
        f"<p><b>Champion</b>: {escape(reign)}</p><p><b>Rollout</b>: {escape(rollout)}; "
        f'to pause, promote, abort or roll back, trigger <a target="_top" href="/dags/{model}.steer">steer</a></p>',
        *map(_table, tables),
        f"<h2>Reports</h2><ul>{''.join(found) or '<li>none yet</li>'}</ul>",
    ]
    return _page(model, "".join(body))


def reports(folder: Path) -> list[str]:
    """The pages that people open first, below the folder: each site's index, and single pages, the newest first."""
    pages = {site.parent for site in folder.glob("**/index.html")}
    alone = [p for p in folder.glob("**/*.html") if not any(p.is_relative_to(site) for site in pages)]
    found = sorted([*(site / "index.html" for site in pages), *alone], key=lambda p: -p.stat().st_mtime)
    return [str(p.relative_to(folder)) for p in found[:MOST]]


def _table(table: Table) -> str:
    return f"<h2>{escape(table.title)}</h2><table><tr>{''.join(_heads(table))}</tr>{''.join(_rows(table))}</table>"


def _heads(table: Table) -> Iterator[str]:
    yield from (f"<th>{escape(head)}</th>" for head in table.heads)
    if table.links:
        yield "<th>card</th>"


def _rows(table: Table) -> Iterator[str]:
    newest = list(enumerate(table.rows))[::-1][:MOST]
    for number, row in newest:
        cells = "".join(f'<td class="{escape(cell)}">{escape(cell)}</td>' for cell in row)
        card = f'<td><a href="runs/{quote(table.links[number])}">card</a></td>' if table.links else ""
        yield f"<tr>{cells}{card}</tr>"


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'
