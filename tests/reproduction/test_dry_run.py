"""A dry run trains the cells of a table from JPEG files, with all that the cells are."""

import dataclasses

import pytest

from spa_jax.reproduction.cells import read_records
from spa_jax.reproduction.driver import Driver
from spa_jax.reproduction.dry_run import dry_run
from spa_jax.reproduction.tables import TABLES
from spa_jax.sweeps.runner import Runner
from spa_jax.training.config import resolve
from spa_jax.training.program import compiled_differences

PLAN = TABLES["imagenet"]
ALLOWED = {
    "epochs",
    "batch_size",
    "eval_batch_size",
    "augment.image_size",
    "augment.resize",
    "optimizer.learning_rate",
    "optimizer.warmup_epochs",
    "method.ldam_drw.epoch",
}


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    return dry_run(PLAN, tmp_path_factory.mktemp("dry") / "images")


def test_it_has_every_cell_once_and_changes_only_size_length_and_data(dry):
    cells, whole = dry.cells([]), [cell for cell in PLAN.cells([]) if cell.seed == 0]
    assert [dataclasses.replace(cell, stage="final") for cell in cells] == whole
    for short, long in zip(cells, whole, strict=True):
        config = dry.config(short)
        resolve(config)
        changed = {
            field
            for field in compiled_differences(config, PLAN.config(long))
            if not field.startswith("data.")
        }
        assert changed <= ALLOWED


@pytest.mark.thorough
def test_a_cell_trains_from_the_files_to_a_record(dry, tmp_path):
    """On a small network: those of the table take minutes here to compile."""

    def config(cell):
        config = dry.config(cell)
        config.model.name, config.model.small.widths = "small", (8,)
        config.model.dtype, config.loader.workers = "float32", 0
        return config

    plan = dataclasses.replace(dry, config=config)
    name = "dry_run-cross_entropy-proj-released-if256-label"
    records = tmp_path / "r.jsonl"
    driver = Driver("imagenet_dry_run", plan, records, Runner(tmp_path), only=[name])
    assert driver.train() == 0
    (record,) = read_records(tmp_path / "r.jsonl")
    assert (record["stage"], record["variant"]) == ("dry_run", "released")
    assert record["summary"]["class_counts"] == [24, 18, 14, 11, 8, 6, 5, 4, 3, 2]
    assert len(record["curves"]["train_loss"]) == 2
