"""The report as one HTML page that needs nothing beside it: no script, no file, no network."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from spa_jax.reporting.figures.style import Absent, Drawing, file_name
from spa_jax.reporting.finished_runs import LeftOut
from spa_jax.reporting.grouping import Group
from spa_jax.reporting.report_tables import Table, mark_of

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem 1.5rem 3rem; background: #fff;
  color: #111; font: 1rem/1.5 Georgia, "Times New Roman", serif; }
h1, h2, th, nav, code { font-family: system-ui, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #999; }
nav { font-size: .9rem; }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
a { color: #004a80; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; }
dt { font-weight: bold; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; border-top: 2px solid #111;
  border-bottom: 2px solid #111; }
caption { text-align: left; padding-bottom: .5rem; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; vertical-align: baseline;
  font-variant-numeric: tabular-nums; }
th { font-size: .8rem; }
thead th { border-bottom: 1px solid #111; vertical-align: bottom; }
th:first-child, .text { text-align: left; }
tbody th { min-width: 4.6rem; }
td code { display: inline-block; min-width: 4.6rem; }
tbody tr + tr > * { border-top: 1px solid #ddd; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .8rem;
  font-weight: normal; overflow-wrap: anywhere; }
figure { margin: 0 0 1rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto .6rem; }
figcaption { font-size: .9rem; }
.notice { border-left: 4px solid #111; padding: .1rem 1rem; }
@page { size: A4; margin: 16mm 14mm; }
@media print {
  html { font-size: 9.5pt; }
  body { max-width: none; padding: 0; }
  nav { display: none; }
  a { color: inherit; text-decoration: none; }
  figure, tr, .notice, .whole { break-inside: avoid; }
  h2, caption { break-after: avoid; }
  .wide { overflow: visible; }
  table { font-size: 7.5pt; width: 100%; }
  th, td { padding: .15rem .3rem; }
  th { font-size: 7pt; }
  code { font-size: 6.5pt; }
}
"""


@dataclass(frozen=True)
class Figure:
    """A figure on the page.

    Attributes:
      drawing: its words.
      svg: the content of its SVG file.
      files: the names of the files next to the page.
    """

    drawing: Drawing
    svg: bytes
    files: tuple[str, ...]


def report_page(
    groups: Sequence[Group],
    tables: Sequence[Table],
    figures: Sequence[Figure],
    absent: Sequence[Absent],
    left_out: Sequence[LeftOut],
    command: str,
) -> str:
    """The page.

    Args:
      groups: what is compared.
      tables: in their order on the page; the last two, of classes and of runs, end it.
      figures: in their order on the page.
      absent: the figures that could not be drawn.
      left_out: the runs that are not in it.
      command: the command that made the page.

    Returns:
      HTML; what came from the runs is escaped.
    """
    first = [table for table in tables if table.title not in _AT_THE_END]
    last = [table for table in tables if table.title in _AT_THE_END]
    title = escape(_title(groups))
    titles = [
        *(table.title for table in first),
        *(figure.drawing.title for figure in figures),
        *(table.title for table in last),
    ]
    links = (f'<li><a href="#{_anchor(text)}">{escape(text)}</a></li>' for text in _unique(titles))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        "<header>",
        f"<h1>{title}</h1>",
        *_facts(groups, command),
        "</header>",
        f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>',
        "<main>",
        *_notices(groups, absent, left_out),
        *(_table(table) for table in first),
        *_figures(figures),
        *(_table(table) for table in last),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


_AT_THE_END = ("Classes", "Runs")
_SHORT_TABLE = 20  # rows


def _title(groups: Sequence[Group]) -> str:
    names = _unique(
        str(run.config.get("data.name", "unknown data")) for group in groups for run in group.runs
    )
    return f"Space alignment on {', '.join(names)}"


def _facts(groups: Sequence[Group], command: str) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    seeds = sorted({run.summary["seed"] for run in runs})
    sizes = _unique(
        f"{len(counts)} classes, {sum(counts):,} training images, from {max(counts):,} down to "
        f"{min(counts):,} in a class"
        for counts in (run.summary["class_counts"] for run in runs)
    )
    versions = _unique(
        f"spa_jax {v.get('spa_jax', '?')}, jax {v.get('jax', '?')}, Python {v.get('python', '?')}"
        for v in (run.summary.get("versions", {}) for run in runs)
    )
    machines = _unique(
        f"{h.get('devices', '?')} device(s) of kind {h.get('device_kind', '?')}, "
        f"{h.get('cpu_count', '?')} CPU cores"
        for h in (run.summary.get("hardware", {}) for run in runs)
    )
    facts = {
        "Runs": f"{len(runs)} in {len(groups)} configuration(s), seeds "
        f"{', '.join(map(str, seeds))}",
        "Data": "; ".join(sizes),
        "Software": "; ".join(versions),
        "Hardware": "; ".join(machines),
    }
    rows = [f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()]
    rows.append(f"<dt>Made by</dt><dd><code>{escape(command)}</code></dd>")
    return ["<dl>", *rows, "</dl>"]


def _notices(
    groups: Sequence[Group], absent: Sequence[Absent], left_out: Sequence[LeftOut]
) -> Iterator[str]:
    items = [f"Left out: {run.folder}: {run.reason}." for run in left_out]
    items += [f"Not drawn: {figure.title}: {figure.reason}" for figure in absent]
    marked = [group.label for group in groups if mark_of(group, groups)]
    if marked:
        items.append(
            f"† Trained on another split than {groups[0].label}: {'; '.join(marked)}. Runs on "
            "different splits are not paired."
        )
    if items:
        yield '<section class="notice" aria-label="Notes"><ul>'
        yield from (f"<li>{escape(item)}</li>" for item in items)
        yield "</ul></section>"


def _table(table: Table) -> str:
    numeric = [all(map(_is_numeric, column)) for column in zip(*table.rows, strict=True)]
    kinds = ["" if number else ' class="text"' for number in numeric]
    head = "".join(
        f'<th scope="col"{kind}>{escape(text)}</th>'
        for text, kind in zip(table.header, kinds, strict=True)
    )
    rows = []
    for row in table.rows:
        first, *rest = (_cell(text, i in table.as_code) for i, text in enumerate(row))
        cells = "".join(
            f"<td{kind}>{cell}</td>" for cell, kind in zip(rest, kinds[1:], strict=True)
        )
        rows.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    # On paper a short table stays in one piece; a long one may go on overleaf.
    whole = ' class="whole"' if len(rows) <= _SHORT_TABLE else ""
    return (
        f'<section id="{_anchor(table.title)}"{whole}>\n<h2>{escape(table.title)}</h2>\n'
        f'<div class="wide"><table>\n<caption>{escape(table.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
        "\n</section>"
    )


def _figures(figures: Sequence[Figure]) -> Iterator[str]:
    """A section a title; a figure in several parts has one."""
    for title in _unique(figure.drawing.title for figure in figures):
        parts = [figure for figure in figures if figure.drawing.title == title]
        whole = ' class="whole"' if len(parts) == 1 else ""
        yield f'<section id="{_anchor(title)}"{whole}>\n<h2>{escape(title)}</h2>'
        yield from map(_figure, parts)
        yield "</section>"


def _figure(figure: Figure) -> str:
    # As an image, so that the names inside one SVG do not meet those of another.
    content = base64.b64encode(figure.svg).decode("ascii")
    files = " and ".join(f"<code>{escape(name)}</code>" for name in figure.files)
    # A CSS inch is 96 pixels: the figure keeps its size, and its type, on screen and on paper.
    width, height = (round(96 * inches) for inches in figure.drawing.figure.get_size_inches())
    return (
        f'<figure>\n<img src="data:image/svg+xml;base64,{content}" width="{width}" '
        f'height="{height}" alt="{escape(figure.drawing.alt)}">\n'
        f"<figcaption>{escape(figure.drawing.caption)} Files: {files}.</figcaption>\n</figure>"
    )


def _cell(text: str, as_code: bool) -> str:
    return f"<code>{escape(text)}</code>" if as_code else escape(text)


def _is_numeric(text: str) -> bool:
    """Whether a cell holds numbers, which stand to the right."""
    return not any(character.isalpha() for character in text) or text.endswith("\u00a0s")


def _anchor(text: str) -> str:
    return file_name(text.lower())


def _unique(texts: Iterator[str] | Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))
