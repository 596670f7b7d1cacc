"""The report as one HTML page that needs nothing beside it: no script, no file, no network."""

import base64
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from spa_jax.reporting.figures.style import Drawing, file_name
from spa_jax.reporting.finished_runs import Run
from spa_jax.reporting.grouping import Group, group_by
from spa_jax.reporting.report_tables import Table, mark_of

_SHORT_TABLE = 20  # rows


class Figure(NamedTuple):
    """A figure on the page.

    Attributes:
      drawing: its words.
      svg: the content of its SVG file.
      files: the names of the files next to the page.
    """

    drawing: Drawing
    svg: bytes
    files: tuple[str, ...]

    @property
    def content(self) -> str:
        """The SVG as part of an address."""
        return base64.b64encode(self.svg).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in CSS pixels, 96 an inch, which keep the size of its letters."""
        width, height = self.drawing.figure.get_size_inches()
        return round(96 * width), round(96 * height)


class Section(NamedTuple):
    """A heading with a table, or with the figures of one title, below it.

    Attributes:
      title: the heading.
      whole: whether it stays in one piece on paper; a long one may go on overleaf.
      table: if it has one.
      figures: if it has some.
    """

    title: str
    whole: bool
    table: Table | None = None
    figures: Sequence[Figure] = ()


def report_page(
    groups: Sequence[Group],
    tables: Sequence[Table],
    figures: Sequence[Figure],
    notes: Sequence[str],
    command: str,
) -> str:
    """The page.

    Args:
      groups: what is compared.
      tables: in their order on the page; those of classes and of runs come after the figures.
      figures: in their order on the page.
      notes: what the page lacks, and why.
      command: the command that made the page.

    Returns:
      HTML; what came from the runs is escaped.
    """
    of_tables = [Section(table.title, len(table.rows) <= _SHORT_TABLE, table) for table in tables]
    by_title = group_by(figures, lambda figure: figure.drawing.title)
    of_figures = [Section(title, len(parts) == 1, None, parts) for title, parts in by_title.items()]
    environment = Environment(
        loader=PackageLoader("spa_jax.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["anchor"] = lambda text: file_name(text.lower())
    runs = [run for group in groups for run in group.runs]
    names = (str(run.config.get("data.name", "unknown data")) for run in runs)
    return environment.get_template("page.html.j2").render(
        title=f"Space alignment on {_each_once(names, ', ')}",
        facts=_facts(runs, len(groups)),
        command=command,
        notes=[*notes, *_note_on_splits(groups)],
        sections=[
            *(section for section in of_tables if section.title not in _AT_THE_END),
            *of_figures,
            *(section for section in of_tables if section.title in _AT_THE_END),
        ],
    )


_AT_THE_END = ("Classes", "Runs")


def _facts(runs: Sequence[Run], configurations: int) -> dict[str, str]:
    """What was trained on what, by name."""
    seeds = sorted({run.summary["seed"] for run in runs})
    versions = (run.summary.get("versions", {}) for run in runs)
    machines = (run.summary.get("hardware", {}) for run in runs)
    return {
        "Runs": f"{len(runs)} in {configurations} configuration(s), seeds "
        f"{', '.join(map(str, seeds))}",
        "Data": _each_once(
            f"{len(counts)} classes, {sum(counts):,} training images, from {max(counts):,} down to "
            f"{min(counts):,} in a class"
            for counts in (run.summary["class_counts"] for run in runs)
        ),
        "Software": _each_once(
            f"spa_jax {found.get('spa_jax', '?')}, jax {found.get('jax', '?')}, "
            f"Python {found.get('python', '?')}"
            for found in versions
        ),
        "Hardware": _each_once(
            f"{found.get('devices', '?')} device(s) of kind {found.get('device_kind', '?')}, "
            f"{found.get('cpu_count', '?')} CPU cores"
            for found in machines
        ),
    }


def _note_on_splits(groups: Sequence[Group]) -> list[str]:
    marked = [group.label for group in groups if mark_of(group, groups)]
    if not marked:
        return []
    return [
        f"† Trained on another split than {groups[0].label}: {'; '.join(marked)}. Runs on "
        "different splits are not paired."
    ]


def _each_once(texts: Iterable[str], between: str = "; ") -> str:
    return between.join(dict.fromkeys(texts))
