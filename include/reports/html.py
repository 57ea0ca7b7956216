"""Pages as HTML text: one look for a model's page, its cards and its rollouts; nothing is loaded from elsewhere."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:1.5em auto;max-width:72em;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;"
    "vertical-align:top}th{background:#f4f4f4}td:first-child{white-space:nowrap}h1{font-size:1.5em}h2{font-size:1.2em}"
    "svg{margin:.5em .5em .5em 0}nav a{margin-right:1.2em}"
    "button{margin:.3em .4em .3em 0;padding:.25em .8em}input{padding:.25em .4em;width:24em}"
    ".pass,.yes{color:#00704a}.fail,.error{color:#b3261e}.inconclusive{color:#8a6100}"
)
OUTCOMES = {"pass", "yes", "fail", "error", "inconclusive"}
#: Airflow shows pages in a frame that may not lead its window elsewhere; a link of the window's own document may.
LEAVE = (
    "document.addEventListener('click',e=>{const a=e.target.closest('a[target=_top]');if(a&&parent!==window){"
    "e.preventDefault();const out=parent.document.createElement('a');out.href=a.href;out.click()}})"
)


def document(title: str, body: str, *, outcome: str = "") -> str:
    """A whole page; `body` is HTML, and `outcome` is said, in its colour, behind the title."""
    said = f': <span class="{escape(outcome)}">{escape(outcome)}</span>' if outcome else ""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style><script>{LEAVE}</script>'
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}{said}</h1>{body}</body></html>\n'
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], links: Sequence[str] = ()) -> str:
    """Cells are text, in the colour of the outcome that they name; `links` `[rows]` lead to a row's evidence."""
    shown = [*map(escape, heads), *(["evidence"] if links else [])]
    lines = [
        [*map(_cell, row), *([f'<td><a href="{escape(links[n])}">open</a></td>'] if links else [])]
        for n, row in enumerate(rows)
    ]
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in shown)}</tr>{body}</table>"


def paragraphs(sentences: Iterable[str]) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _cell(text: str) -> str:
    return f'<td class="{text}">{text}</td>' if text in OUTCOMES else f"<td>{escape(text)}</td>"
