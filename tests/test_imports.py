"""The library is light to import, and its rooms know each other one way only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "spa_jax"

# Every room may import from these.
_BASICS = {"errors", "extras", "files", "options"}
# Room -> the rooms that it imports from, besides itself and the basics.
ARROWS = {
    "alignment": set(),
    "dynamics": {"alignment"},
    "longtail": {"alignment"},
    "models": {"alignment"},
    "data": set(),
    "reporting": {"alignment"},
    "training": {"alignment", "dynamics", "longtail", "models", "data", "reporting"},
    "sweeps": {"training"},
    "reproduction": {"training", "sweeps"},
}
ALIGNMENT_MAY_IMPORT = {"jax", "optax", "jaxtyping", "numpy", "spa_jax"}


def imported(path):
    """Dotted names of the modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_known_to(folder):
    """The rooms and modules of the package that the files below a folder import from."""
    names = {name for path in folder.rglob("*.py") for name in imported(path)}
    return {name.split(".")[1] for name in names if name.startswith("spa_jax.")}


def test_every_room_has_its_arrows():
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/**/*.py")}
    assert folders == ARROWS.keys()


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_the_rooms_that_it_knows_and_no_other(room):
    basics = _BASICS if room != "alignment" else set()
    assert rooms_known_to(PACKAGE / room) - basics - {room} == ARROWS[room]


def test_arrows_point_one_way():
    for room, known in ARROWS.items():
        assert not any(room in ARROWS[other] for other in known)


def test_nothing_in_the_package_imports_the_repository_root():
    for path in PACKAGE.rglob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"configs", "studies", "benchmarks", "tests", "train"}, path


def test_names_of_files_stand_once_in_the_package():
    names = [path.name for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_the_alignment_library_needs_jax_optax_and_jaxtyping_only():
    for path in (PACKAGE / "alignment").glob("*.py"):
        outer = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
        assert outer <= ALIGNMENT_MAY_IMPORT, path


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_imports_no_training_library():
    heavy = ["flax", "orbax", "sklearn", "matplotlib", "tensorflow", "tensorflow_datasets", "grain"]
    assert (
        run_python(f"import spa_jax, sys; print([m for m in {heavy} if m in sys.modules])") == "[]"
    )


def test_training_imports_no_tensorflow():
    assert run_python("import spa_jax.training.loop, sys; print('tensorflow' in sys.modules)") == (
        "False"
    )


def test_documented_modules_keep_their_names():
    code = "import spa_jax.dynamics.collapse, spa_jax.dynamics.error_exponent; print('there')"
    assert run_python(code) == "there"
