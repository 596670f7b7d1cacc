"""Makes the tables and figures of README.md and docs/ anew from the records in results/.

python -m studies.update_readme
"""

import json
import re
from pathlib import Path

from spa_jax.compare import markdown_table
from spa_jax.reproduction.records import read_records
from studies.pages import with_studies
from studies.reproduction.reproduction_figures import save_figures
from studies.reproduction.sections import SECTIONS
from studies.tables import input_rate_table, input_share_table, sweep_table

REPOSITORY = Path(__file__).parents[1]
_TABLES = {
    "input_share": input_share_table,
    "input_rate": input_rate_table,
    "sweep": sweep_table,
}
_TABLE = re.compile(r"(<!-- (table|reproduction): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURES = REPOSITORY / "docs" / "reproduction"
PAGES = ("README.md", "docs/reproduction.md")


def with_tables(text: str) -> str:
    """The text with every table between its markers made anew from the record it names."""

    def table(match: re.Match[str]) -> str:
        start, kind, name, end = match.groups()
        if kind == "reproduction":
            runs = REPOSITORY / "results" / f"{name.partition('/')[0]}.jsonl"
            return f"{start}\n{SECTIONS[name](read_records(runs))}\n\n{end}"
        record = json.loads((REPOSITORY / name).read_text())
        as_table = _TABLES.get(record.get("benchmark"), markdown_table)
        return f"{start}\n{as_table(record)}\n{end}"

    return _TABLE.sub(table, text)


if __name__ == "__main__":
    for page in PAGES:
        path = REPOSITORY / page
        path.write_text(with_tables(path.read_text()))
    save_figures(REPOSITORY / "results", FIGURES)
    for study in (REPOSITORY / "docs" / "studies").glob("*.md"):
        study.write_text(with_studies(study.read_text(), REPOSITORY / "results"))
