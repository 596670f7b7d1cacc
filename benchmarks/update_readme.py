"""Makes the tables in README.md anew from the records in results/.

python -m benchmarks.update_readme
"""

import json
import re
from pathlib import Path

from benchmarks.tables import input_rate_table, input_share_table
from spa_jax.compare import markdown_table

REPOSITORY = Path(__file__).parents[1]
_TABLES = {"input_share": input_share_table, "input_rate": input_rate_table}
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """The text with every table between its markers made anew from the record it names."""

    def table(match: re.Match[str]) -> str:
        record = json.loads((REPOSITORY / match[2]).read_text())
        as_table = _TABLES.get(record.get("benchmark"), markdown_table)
        return f"{match[1]}\n{as_table(record)}\n{match[3]}"

    return _TABLE.sub(table, text)


if __name__ == "__main__":
    readme = REPOSITORY / "README.md"
    readme.write_text(with_tables(readme.read_text()))
