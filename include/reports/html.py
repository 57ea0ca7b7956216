"""HTML pages for people: one style for a model's page, its cards and its rollouts; nothing is loaded from elsewhere."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:1.5em auto;max-width:72em;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;"
    "vertical-align:top}th{background:#f4f4f4}td:first-child{white-space:nowrap}h1{font-size:1.5em}h2{font-size:1.2em}"
    "svg{margin:.5em .5em .5em 0}nav a{margin-right:1.2em}"
    "button{margin:.3em .4em .3em 0;padding:.25em .8em}input{padding:.25em .4em;width:24em}"
    ".pass,.yes{color:#00704a}.fail,.error{color:#b3261e}.inconclusive{color:#8a6100}"
)
#: Texts of a cell that are shown in a colour of their own.
OUTCOMES = {"pass", "yes", "fail", "error", "inconclusive"}
#: Airflow shows pages in a frame that may not lead its window elsewhere; a link of the window's own document may.
OPEN_LINKS_OUTSIDE_THE_FRAME = (
    "document.addEventListener('click',e=>{const a=e.target.closest('a[target=_top]');if(a&&parent!==window){"
    "e.preventDefault();const out=parent.document.createElement('a');out.href=a.href;out.click()}})"
)


@dataclass(frozen=True)
class ReportTable:
    """A table of texts for people: `heads` `[columns]`, `rows` `[rows][columns]`.

    `links` `[rows]` lead to the evidence behind each row; empty where there is none.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    links: Sequence[str] = ()


def document(title: str, body: str, *, outcome: str = "") -> str:
    """Return a whole page; `body` is HTML, and `outcome` stands behind the title in its colour."""
    suffix = f': <span class="{escape(outcome)}">{escape(outcome)}</span>' if outcome else ""
    script = f"<script>{OPEN_LINKS_OUTSIDE_THE_FRAME}</script>"
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>{script}'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}{suffix}</h1>{body}</body></html>\n'


def table(content: ReportTable) -> str:
    """Return the table as HTML, without its title; a cell that names an outcome is shown in the outcome's colour."""
    heads = [*map(escape, content.heads), *(["evidence"] if content.links else [])]
    lines = ["".join(map(_cell, row)) for row in content.rows]
    if content.links:
        links = (f'<td><a href="{escape(link)}">open</a></td>' for link in content.links)
        lines = [line + link for line, link in zip(lines, links, strict=True)]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{body}</table>"


def paragraphs(sentences: Iterable[str]) -> str:
    """Return each sentence as a paragraph of its own."""
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _cell(text: str) -> str:
    return f'<td class="{text}">{text}</td>' if text in OUTCOMES else f"<td>{escape(text)}</td>"
