"""The library is light to import, and its rooms know each other one way only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spa_jax"
# Room -> the rooms that it may import from, besides itself.
ARROWS = {
    "alignment": set(),
    "dynamics": {"alignment", "errors"},
    "longtail": {"alignment", "errors"},
    "data": {"alignment", "errors"},
    "models": {"alignment", "errors"},
    "training": {"alignment", "dynamics", "data", "models", "longtail", "errors", "files"},
    "reproduction": {"dynamics", "training", "errors", "files"},
}
ALIGNMENT_MAY_IMPORT = {"jax", "optax", "jaxtyping", "numpy", "spa_jax"}


def imported(path):
    """Dotted names of the modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_only_the_rooms_it_may_know(room):
    for path in (PACKAGE / room).glob("*.py"):
        inner = [name.split(".") for name in imported(path) if name.startswith("spa_jax.")]
        assert {parts[1] for parts in inner} <= ARROWS[room] | {room}, path


def test_the_alignment_library_needs_jax_optax_and_jaxtyping_only():
    for path in (PACKAGE / "alignment").glob("*.py"):
        outer = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
        assert outer <= ALIGNMENT_MAY_IMPORT, path


def test_importing_the_package_imports_no_training_library():
    heavy = ["flax", "orbax", "sklearn", "matplotlib", "tensorflow", "tensorflow_datasets", "grain"]
    code = f"import spa_jax, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_imports_no_tensorflow():
    code = "import spa_jax.training.loop, sys; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
