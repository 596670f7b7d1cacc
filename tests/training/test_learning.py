"""Real runs on real images: the network learns, and SpA aligns on held-out features."""

from pathlib import Path

import pytest
from rich.console import Console

from configs import digits_lt, fashion_mnist_lt
from spa_jax.compare import compare, markdown_table
from spa_jax.errors import InputError
from spa_jax.training.config_limits import SPA_METHODS
from spa_jax.training.loop import run
from spa_jax.training.program import Program


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    config = digits_lt.get_config()
    config.checkpoint.every_epochs = 0
    config.logging.tensorboard = config.logging.plots = False
    console = Console(quiet=True)
    return compare(config, SPA_METHODS, [0], tmp_path_factory.mktemp("digits"), console)


def held_out_cosine(comparison, method):
    return comparison["statistics"][method]["held-out cosine"]["mean"]


@pytest.mark.parametrize("method", SPA_METHODS)
def test_every_method_learns_the_digits(comparison, method):
    assert comparison["statistics"][method]["test accuracy"]["mean"] > 0.7  # chance is 0.1


@pytest.mark.parametrize("method", ["reg", "slerp"])
def test_reg_and_slerp_align_held_out_features(comparison, method):
    assert held_out_cosine(comparison, method) > held_out_cosine(comparison, "none") + 0.02


def test_a_method_that_does_not_exist_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(InputError, match=r"spa\.method must be one of"):
        compare(digits_lt.get_config(), ["none", "prj"], [0], tmp_path, Console(quiet=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", SPA_METHODS)
def test_every_method_learns_fashion_mnist_in_three_epochs(method, tmp_path):
    config = fashion_mnist_lt.get_config()
    if not Path(config.data.folder).is_dir():
        pytest.skip("Fashion-MNIST is not installed; the digits are learned in any case")
    config.epochs, config.spa.method = 3, method
    summary = run(config, tmp_path, say=lambda line: None)
    assert summary["test_accuracy"]["last"] > 0.65  # chance is 0.1


def test_untrained_weights_are_not_aligned(comparison):
    config = digits_lt.get_config()
    program = Program(config)
    report = program.evaluate(program.init_state(config))
    assert abs(float(report["test_mean_cosine"])) < 0.4
    assert held_out_cosine(comparison, "none") > 0.6


def test_the_table_names_split_seeds_and_hardware(comparison):
    table = markdown_table(comparison)
    for part in (*SPA_METHODS, comparison["split"]["checksum"][:16], "seeds 0", "CPU cores"):
        assert part in table
