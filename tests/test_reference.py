"""The reference leaves nothing out: every public name and every field of a configuration."""

import importlib

from docs.reference_pages import LIBRARY, config_page, modules, own_names, public_names, room_page
from spa_jax.training.config import default_config, flatten_config
from tests.test_imports import PACKAGE


def test_every_module_of_the_package_is_in_a_room():
    files = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    there = {".".join(file.parts).removesuffix(".__init__") for file in files}
    found = {name for names in modules().values() for name in names}
    assert there - found == {"spa_jax", "spa_jax.__main__", "spa_jax.extras"}


def test_every_public_name_has_a_docstring_and_its_module_stands_on_a_page():
    """Without a docstring it would be passed over when the site is built."""
    pages = "".join(room_page(room, names) for room, names in modules().items()).splitlines()
    for name in public_names():
        module, _, what = name.rpartition(".")
        assert f".. automodule:: {module}" in pages, name
        assert getattr(importlib.import_module(module), what).__doc__, name


def test_the_names_of_the_library_are_those_that_it_gives_out():
    hidden = own_names(importlib.import_module("spa_jax.alignment.geometry"))
    assert "spa_jax.spa_proj" in [*public_names()] and "widen" in hidden
    assert room_page(LIBRARY, modules()[LIBRARY]).count(":members:") == 1


def test_every_field_of_a_configuration_has_a_row():
    rows = {line.split("`")[1] for line in config_page().splitlines() if line.startswith("| `")}
    assert rows == {*flatten_config(default_config().to_dict())}
