"""Makes the tables in README.md anew from the records in results/.

python benchmarks/update_readme.py
"""

import json
import re
from pathlib import Path

from spa_jax.compare import markdown_table

REPOSITORY = Path(__file__).parents[1]
_TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """The text with every table between its markers made anew from the record it names."""

    def table(match: re.Match[str]) -> str:
        comparison = json.loads((REPOSITORY / match[2]).read_text())
        return f"{match[1]}\n{markdown_table(comparison)}\n{match[3]}"

    return _TABLE.sub(table, text)


if __name__ == "__main__":
    readme = REPOSITORY / "README.md"
    readme.write_text(with_tables(readme.read_text()))
