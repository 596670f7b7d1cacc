"""Makes the pages, with their tables and figures, anew from the records in `results/`.

python -m studies.build [PAGE ...] [--runs FOLDER ...]

Without a name all pages are made. With `--runs` and the name of a study its record and its figure
are made first, from the finished runs in these folders: each holds the runs of one data set, as
`--out` of `python -m spa_jax.compare` with `--config.logging.collapse=True` does.
"""

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spa_jax.errors import with_status
from spa_jax.files import write_text_whole
from studies.contact_sheets import save_sheets
from studies.geometry_figures import save_geometry_figure
from studies.reproduction.beforehand import correlations, save_beforehand
from studies.reproduction.claims_table import claims_table
from studies.reproduction.pairing import TableRuns
from studies.reproduction.reproduction_figures import save_figures
from studies.reproduction.sections import SECTIONS
from studies.study import STUDIES, make_study
from studies.tables import record_table
from studies.theory.figures import save_theory_figures

REPOSITORY = Path(__file__).parents[1]

PAGES: Mapping[str, str] = {
    "readme": "README.md",
    "results": "docs/results.md",
    "reproduction": "docs/reproduction.md",
    "theory": "docs/theory.md",
    "variants": "docs/explanation/variants.md",
    "means": "docs/explanation/means.md",
    "augmentation": "docs/augmentation.md",
    "performance": "docs/performance.md",
    "many_classes": "docs/how_to/many_classes.md",
    "faults": "docs/faults.md",
    "scaling": "docs/scaling.md",
    "frozen_features": "docs/studies/frozen_features.md",
    "beforehand": "docs/studies/beforehand.md",
    "methods": "docs/methods.md",
    **{name: f"docs/studies/{name}.md" for name in STUDIES},
}
"""Where each page is."""

_FIGURES: Mapping[str, Callable[[Path], None]] = {
    "reproduction": lambda root: save_figures(root / "results", root / "docs/reproduction"),
    "theory": lambda root: save_theory_figures(root / "docs/theory"),
    "variants": lambda root: save_geometry_figure(root / "docs/explanation", "variants"),
    "means": lambda root: save_geometry_figure(root / "docs/explanation", "means"),
    "augmentation": lambda root: save_sheets(root / "docs/augmentation"),
    "beforehand": lambda root: save_beforehand(
        root / "results", root / "docs/studies/beforehand.png"
    ),
}
_OVER_TABLES: Mapping[str, Callable[[Callable[[str], TableRuns]], str]] = {
    "paper": claims_table,
    "beforehand": correlations,
}
_TABLE = re.compile(r"(<!-- (table|reproduction|claims): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str, root: Path = REPOSITORY) -> str:
    """A page with all that stands between its markers made anew from the records.

    Args:
      text: a page with `<!-- table: results/NAME.json -->`, for the tables of a record,
        `<!-- reproduction: TABLE/SECTION -->`, or `<!-- claims: NAME -->`, each with a
        `<!-- end -->` below it.
      root: the folder with `results`; of a record that is not there the page says so.

    Returns:
      The page.
    """
    runs_of = functools.cache(functools.partial(TableRuns.read, root / "results"))

    def table(match: re.Match[str]) -> str:
        start, kind, name, end = match.groups()
        if kind == "claims":
            found = _OVER_TABLES[name](runs_of)
        elif kind == "reproduction":
            found = SECTIONS[name](runs_of(name.partition("/")[0]))
        else:
            record = root / name
            found = record_table(json.loads(record.read_text())) if record.exists() else ""
        return f"{start}\n{found or 'Not run yet.'}\n\n{end}"

    return _TABLE.sub(table, text)


def build(page: str, root: Path = REPOSITORY, runs: Sequence[Path] = ()) -> None:
    """Makes one page, and its figures where the records are enough for them.

    Args:
      page: a key of :data:`PAGES`.
      root: the folder with `README.md`, `docs` and `results`.
      runs: folders of runs to measure first, of a study.

    Raises:
      InputError: runs that the study cannot use; nothing has been written.
    """
    path = root / PAGES[page]
    if runs:
        record = root / "results" / f"studies_{page}.json"
        make_study(page, runs, record, path.with_suffix(".png"))
    if page in _FIGURES:
        _FIGURES[page](root)
    write_text_whole(path, with_tables(path.read_text(), root))


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Makes the pages that the arguments name; 2 with a message if the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m studies.build", description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)}")
    parser.add_argument("--runs", nargs="+", type=Path, default=(), help="of one study")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="folder of README.md")
    values = parser.parse_args(argv)
    unknown = [name for name in values.pages if name not in PAGES]
    if unknown:
        parser.error(f"there is no page {unknown[0]!r}, only {', '.join(PAGES)}")
    if values.runs and not (len(values.pages) == 1 and values.pages[0] in STUDIES):
        parser.error(f"--runs is for one study: {', '.join(STUDIES)}")
    for name in values.pages or PAGES:
        build(name, values.root, values.runs)
        print(values.root / PAGES[name])


if __name__ == "__main__":
    sys.exit(main())
