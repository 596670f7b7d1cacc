"""Runs of minutes: every variant and every method learns Fashion-MNIST."""

import statistics
from pathlib import Path

import pytest

from spa_jax.longtail.registry import METHODS
from spa_jax.reproduction.cells import Cell
from spa_jax.reproduction.tables import TABLES
from spa_jax.training.loop import run
from spa_jax.training.recipes import fashion_mnist_lt
from spa_jax.training.variants import VARIANTS
from tests.training.small import small_program

pytestmark = pytest.mark.slow


def skip_unless_installed(config):
    if not Path(config.data.folder).is_dir():
        pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_fashion_mnist_in_three_epochs(variant, tmp_path):
    config = fashion_mnist_lt()
    skip_unless_installed(config)
    config.epochs, config.spa.method = 3, variant
    summary = run(config, tmp_path, say=lambda line: None)
    assert summary["test_accuracy"]["last"] > 0.65  # chance is 0.1


@pytest.fixture(scope="module")
def fashion_accuracy(tmp_path_factory):
    """A function that gives a method's last test accuracy, the mean of three seeds."""
    known = {}

    def config_of(method, seed):
        cell = Cell("final", method, "none", 100.0, seed, "reversed")
        config = TABLES["fashion_mnist"].config(cell)
        config.checkpoint.every_epochs = 0
        if "epoch" in config.method.get(method, {}):  # at which class weights begin
            config.method[method].epoch = config.epochs * 4 // 5
        config.logging.tensorboard = config.logging.plots = False
        return config

    def get(method):
        if method not in known:
            first = config_of(method, 0)
            skip_unless_installed(first)
            assert first.epochs == 30
            program = small_program(first)
            accuracies = []
            for seed in range(3):
                workdir = tmp_path_factory.mktemp(f"{method}_{seed}")
                summary = run(config_of(method, seed), workdir, program, lambda line: None)
                accuracies.append(summary["test_accuracy"]["last"])
            known[method] = statistics.mean(accuracies)
        return known[method]

    return get


@pytest.mark.parametrize("method", [name for name in METHODS if name != "cross_entropy"])
def test_no_method_falls_behind_cross_entropy_on_fashion_mnist(method, fashion_accuracy):
    """Rare classes that are hard, 30 epochs, three seeds; three points are for chance."""
    assert fashion_accuracy(method) >= fashion_accuracy("cross_entropy") - 0.03
