"""The site: `make docs` builds it."""

import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

import spa_jax

SITE = Path(__file__).parent
sys.path[:0] = [str(SITE), str(SITE.parent / "examples")]

import reference_pages  # noqa: E402

project = "spa_jax"
author = "The spa_jax authors"
copyright = author
release = version = spa_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx-mathjax-offline",  # a copy that is served with the site
]
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = "spa_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the search is in the side bar
}

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # seconds a cell, on a machine that is busy too
nb_merge_streams = True

default_role = "code"  # docstrings put code between single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
napoleon_custom_sections = [("Reference", "notes_style")]
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes as a list, since many are members too
nitpicky = True
nitpick_ignore_regex = [("py:(class|obj|attr|exc|data)", ".*")]  # most are of other packages


def _skip_fields(app: Sphinx, what, name, member, skip, options):
    """Of a named tuple's fields nothing is said but their position."""
    return True if type(member).__name__ == "_tuplegetter" else None


def _check_coverage(app: Sphinx, env) -> None:
    """A public name that is on no page fails a strict build."""
    there = env.get_domain("py").objects
    for name in reference_pages.public_names():
        if name not in there:
            logging.getLogger(__name__).warning("%s is on no page of the reference", name)


def setup(app: Sphinx) -> None:
    """Writes the reference before pages are read, and checks it when they have been."""
    app.connect("autodoc-skip-member", _skip_fields)
    app.connect("builder-inited", lambda app: reference_pages.write_pages(SITE))
    app.connect("env-check-consistency", _check_coverage)
