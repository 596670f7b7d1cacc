"""Names under which the tests of the README still look for :mod:`studies.build`."""

from studies.build import REPOSITORY, with_tables

__all__ = ["FIGURES", "PAGES", "REPOSITORY", "with_tables"]

FIGURES = REPOSITORY / "docs" / "reproduction"
PAGES = ("README.md", "docs/reproduction.md")
