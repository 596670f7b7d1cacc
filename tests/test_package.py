"""What is installed: little for the library, the rest by name; one version; one command."""

import os
import re
import subprocess
import sys
import tomllib
import venv
from importlib.util import find_spec
from pathlib import Path

from spa_jax.extras import OF_TRAIN

import jaxtyping
import pytest

import spa_jax
from spa_jax.__main__ import COMMANDS
from tests.test_imports import PACKAGE, imported

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CPU = os.environ | {"JAX_PLATFORMS": "cpu"}


def run(*command, **options):
    """A finished process, with what it said."""
    options = {"cwd": ROOT, "env": CPU, "check": False} | options
    return subprocess.run([*map(str, command)], capture_output=True, text=True, **options)


def name_of(requirement):
    return re.split("[>=\\[]", requirement)[0]


def test_requirements_txt_lists_what_the_package_and_its_extra_train_bring():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed == sorted(listed)
    assert {*listed} == {*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["train"]}


def test_the_library_needs_four_packages():
    needed = {name for name in PROJECT["dependencies"] if "<" not in name}  # the rest are JAX's own
    assert {*map(name_of, needed)} == {"jax", "jaxtyping", "numpy", "optax"}


def test_commands_look_for_all_that_the_package_imports():
    base = {*map(name_of, PROJECT["dependencies"]), "spa_jax", *sys.stdlib_module_names}
    found = {name.split(".")[0] for path in PACKAGE.rglob("*.py") for name in imported(path)}
    extra = {"tensorboard", "safetensors", "google"}  # told where they lack; TFDS brings protobuf
    assert found - base - {*OF_TRAIN} == extra


def test_the_version_is_the_same_everywhere():
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == (
        spa_jax.__version__
    )


def test_importing_the_package_adds_little_to_importing_what_it_needs():
    code = (
        "from time import process_time as now\n"
        "start = now(); import jax, jaxtyping, optax; needed = now()\n"
        "import spa_jax; print((now() - needed) / (needed - start))"
    )
    assert float(run(sys.executable, "-c", code).stdout) < 0.25


def test_types_are_checked_where_that_is_asked_for(request):
    with pytest.raises(Exception, match=r"\w") as refused:
        spa_jax.ClassMeans.create("four", 6)
    checked = isinstance(refused.value, jaxtyping.TypeCheckError)
    assert checked == request.config.getoption("--typed")


def test_every_command_is_a_module():
    assert [name for name, (module, _) in COMMANDS.items() if find_spec(module) is None] == []


def test_one_name_starts_every_command():
    done = run(sys.executable, "-m", "spa_jax", "describe", "cifar10", "--imbalance_factor=50")
    assert done.returncode == 0
    assert "cifar10: 10 classes, 13996 training images, from 5000 down to 100" in done.stdout
    asked = run(sys.executable, "-m", "spa_jax", "--help")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert [name for name in COMMANDS if f"  {name} " not in asked.stdout] == []


@pytest.mark.parametrize("arguments", [(), ("trian",)])
def test_no_command_is_answered_with_the_commands(arguments):
    done = run(sys.executable, "-m", "spa_jax", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "  train " in done.stderr
    assert ("no command 'trian'" in done.stderr) == bool(arguments)


@pytest.mark.thorough
def test_wheel_and_sdist_bring_what_the_library_needs_and_no_more(tmp_path):
    """Both are built, and the wheel is installed into an empty environment."""
    away = {"cwd": tmp_path, "env": {k: v for k, v in CPU.items() if k != "PYTHONPATH"}}
    built = run(sys.executable, "-m", "build", "--outdir", tmp_path, ROOT)
    assert built.returncode == 0, built.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    version = spa_jax.__version__
    assert names == [f"spa_jax-{version}-py3-none-any.whl", f"spa_jax-{version}.tar.gz"]
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty/bin/python"
    install = ("-m", "pip", "--python", python, "install", "--quiet", tmp_path / names[0])
    installed = run(sys.executable, *install, **away)
    assert installed.returncode == 0, installed.stderr
    code = (
        "import spa_jax, jax.numpy as jnp; means = spa_jax.ClassMeans.create(num_classes=2, dim=3);"
        "print(spa_jax.class_cosines({'head': {'kernel': jnp.eye(3, 2)}}, means).shape)"
    )
    assert run(python, "-c", code, **away).stdout == "(2,)\n"
    script = tmp_path / "empty/bin/spa-jax"
    assert run(script, "--version", **away).stdout == f"spa_jax {version}\n"
    lacking = run(script, "compare", **away)
    assert (lacking.returncode, lacking.stdout) == (2, "")
    assert lacking.stderr.startswith("error: This command needs ")
    for done in (lacking, run(python, "-m", "spa_jax.compare", **away)):
        assert "pip install 'spa_jax[train]'" in done.stderr
