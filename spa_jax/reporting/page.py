"""The report as one HTML page that needs nothing beside it: no script, no file, no network.

Its parts hold numbers; what is said about them is in `words.html.j2`, by the part's name.
"""

import base64
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from spa_jax.reporting.figures.style import Drawing, file_name
from spa_jax.reporting.finished_runs import LeftOut
from spa_jax.reporting.grouping import Group, group_by
from spa_jax.reporting.report_tables import Table, mark_of

Contents = Mapping[str, Sequence[Table | Drawing]]
"""Name of a part of the report -> its tables or figures, in their order on the page."""


def report_page(
    groups: Sequence[Group], contents: Contents, notes: Sequence[str], command: str, folder: Path
) -> str:
    """The page.

    Args:
      groups: what is compared.
      contents: the parts.
      notes: what the page lacks, and why.
      command: the command that made the page.
      folder: has an SVG file of each figure.

    Returns:
      HTML; what came from the runs is escaped.
    """
    runs = [run for group in groups for run in group.runs]
    sections = []
    for part, items in contents.items():
        title_of = functools.partial(_title, part)
        sections += [(title, part, same) for title, same in group_by(items, title_of).items()]

    def each_once(name: str, between: str = "; ") -> str:
        return between.join(dict.fromkeys(words(name, run) for run in runs))

    def svg_of(drawing: Drawing) -> str:
        return base64.b64encode((folder / f"{drawing.name}.svg").read_bytes()).decode("ascii")

    template = _environment().get_template("page.html.j2")
    return template.render(
        runs=runs,
        groups=groups,
        marked=[group.label for group in groups if mark_of(group, groups)],
        sections=sections,
        notes=notes,
        command=command,
        words=words,
        each_once=each_once,
        svg_of=svg_of,
    )


def what_is_missing(contents: Contents, left_out: Sequence[LeftOut]) -> list[str]:
    """What a person should know: runs that were left out, figures that could not be drawn.

    Args:
      contents: the parts; one that holds nothing is missing if there are words for that.
      left_out: unfinished runs.
    """
    known = dir(_all_words())
    absent = [part for part in contents if not contents[part] and f"{part}_absent" in known]
    return [
        *(words("left_out", run) for run in left_out),
        *(f"Not drawn: {_title(part)}: {words(f'{part}_absent', {})}" for part in absent),
    ]


def words(name: str, facts: Any) -> str:
    """Plain text of `words.html.j2`.

    Args:
      name: of the text, such as "alignment_caption".
      facts: what it states.
    """
    lines = getattr(_all_words(), name)(facts).unescape().splitlines()
    return " ".join(filter(None, map(str.strip, lines)))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("spa_jax.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"anchor": lambda text: file_name(text.lower()), "typeset": _typeset}
    return environment


def _typeset(number: str) -> str:
    """With a minus or, where there is no number, a dash, and without lines that end in it."""
    if number == "-":
        return "\u2013"
    return number.replace("-", "\u2212").replace(" ", "\u00a0").replace("\u00a0[", " [")


def _all_words() -> Any:
    return _environment().get_template("words.html.j2").module


def _title(part: str, item: Table | Drawing | None = None) -> str:
    return words(f"{part}_title", {} if item is None else item.facts)
