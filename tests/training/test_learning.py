"""Real runs on real images: the network learns, and SpA aligns on held-out features."""

import json

import pytest
from rich.console import Console

from spa_jax.compare import compare
from spa_jax.sweeps.grid import make_grid
from spa_jax.training.loop import run
from spa_jax.training.recipes import digits_lt
from spa_jax.training.variants import VARIANTS
from studies.tables import record_table
from tests.training.small import small_program

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def comparison(folder):
    """Each variant trained on one device, and then only compared."""
    config = digits_lt()
    config.epochs, config.evaluate_every = 40, 1
    config.checkpoint.every_epochs = config.logging.every_steps = 0
    config.logging.tensorboard = config.logging.plots = config.logging.collapse = False
    variants = tuple(VARIANTS)
    for member in make_grid(config, {"spa.method": variants}, [0], folder):
        run(member.config, member.folder, small_program(member.config), say=lambda line: None)
    return compare(config, variants, [0], folder, Console(quiet=True))


def held_out_cosine(comparison, variant):
    return comparison["statistics"][variant]["held-out cosine"]["mean"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_the_digits(comparison, variant):
    assert comparison["statistics"][variant]["test accuracy"]["mean"] > 0.7  # chance is 0.1


@pytest.mark.parametrize("variant", ["reg", "slerp"])
def test_reg_and_slerp_align_held_out_features(comparison, variant):
    assert held_out_cosine(comparison, variant) > held_out_cosine(comparison, "none") + 0.02


def test_weights_are_not_aligned_before_they_are_trained(comparison, folder):
    (path,) = folder.glob("none-seed0/metrics.jsonl")
    first = json.loads(path.read_text().splitlines()[0])
    assert abs(first["test_mean_cosine"]) < 0.5
    assert held_out_cosine(comparison, "none") > 0.6


def test_the_table_names_split_seeds_and_hardware(comparison):
    table = record_table(comparison)
    for part in (*VARIANTS, comparison["split"]["checksum"][:16], "seed 0", "CPU cores"):
        assert part in table
