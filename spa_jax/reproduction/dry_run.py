"""A dry run of a table: its methods and recipes for two epochs on little data."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spa_jax.reproduction.cells import Cell, TablePlan
from spa_jax.training.config import Config

_TRAIN_COUNTS = (24, 18, 14, 11, 8, 6, 5, 4, 3, 2)
_TEST_COUNT = 4
_SIDE = 40
_EPOCHS, _BATCH_SIZE, _IMAGE_SIZE = 2, 16, 32
_N_MAX = 200


def dry_run(plan: TablePlan, folder: Path) -> TablePlan:
    """The table's cells with one seed, for two epochs on a folder of JPEG files that it writes.

    Everything else is the cell's: network, method, alignment, augmentation, precision; the learning
    rate falls with the batch size. It shows that a cell trains from files to its summary, and says
    nothing of accuracy.

    Args:
      plan: the table.
      folder: gets `train` and `test` folders of long-tailed handwritten digits as JPEG files, 95
        to train on and 40 to test on; kept if it is there.

    Returns:
      A plan whose cells have the stage "dry_run", so that their records are not taken for others.
    """
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}-unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_digits(unfinished)
        unfinished.rename(folder)

    return TablePlan(
        lambda cell: _shortened(plan.config(cell), folder), lambda records: dry_cells(plan)
    )


def short_run(plan: TablePlan) -> TablePlan:
    """The cells of a table of CIFAR with two seeds, for two epochs of a small network.

    They train on the first images that a cell takes, 200 of the largest class, of the folder that
    they are given. It shows that a cell trains from there to its record.
    """

    def config(cell: Cell) -> Config:
        config = plan.config(cell)
        config.model.cifar_resnet.width_factor, config.model.name = 1, "small"
        config.model.small.widths, config.model.small.stem_stride = (4,), 4
        config.epochs, config.data.n_max = _EPOCHS, _N_MAX
        config.optimizer.warmup_epochs = min(config.optimizer.warmup_epochs, 1.0)
        if config.optimizer.schedule == "spa_released":  # which warms up for ten epochs
            config.optimizer.schedule = "cosine"
        if cell.method == "ldam_drw":
            config.method.ldam_drw.epoch = 1
        return config

    return TablePlan(config, lambda records: dry_cells(plan, (0, 1)))


def dry_cells(plan: TablePlan, seeds: Sequence[int] = (0,)) -> list[Cell]:
    """The cells of a table's dry run: those that wait for no tuning, with few seeds."""
    first = [cell for cell in plan.cells([]) if cell.seed in seeds and cell.settings is not None]
    return [dataclasses.replace(cell, stage="dry_run") for cell in first]


def _shortened(config: Config, folder: Path) -> Config:
    config.optimizer.learning_rate *= _BATCH_SIZE / config.batch_size
    config.epochs, config.batch_size, config.eval_batch_size = _EPOCHS, _BATCH_SIZE, _BATCH_SIZE
    config.data.name, config.data.folder = "digits_as_files", str(folder)
    config.data.profile, config.data.feed = "natural", "stream"
    config.augment.image_size, config.augment.resize = _IMAGE_SIZE, _SIDE
    config.optimizer.warmup_epochs = min(config.optimizer.warmup_epochs, 1.0)
    if config.method.name == "ldam_drw":
        config.method.ldam_drw.epoch = 1
    config.loader.workers = 2
    config.checkpoint.every_epochs, config.checkpoint.keep = 1, 1
    return config


def write_digits(folder: Path) -> None:
    """Writes scikit-learn's digits as JPEG files, a folder a class, in `train` and in `test`."""
    from PIL import Image
    from sklearn.datasets import load_digits  # takes a second to import

    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    for label, count in enumerate(_TRAIN_COUNTS):
        of_class = pixels[labels == label]
        parts = {"test": of_class[:_TEST_COUNT], "train": of_class[_TEST_COUNT:][:count]}
        for part, chosen in parts.items():
            place = folder / part / str(label)
            place.mkdir(parents=True)
            for number, image in enumerate(chosen):
                enlarged = Image.fromarray(image).resize((_SIDE, _SIDE)).convert("RGB")
                enlarged.save(place / f"{number:02}.jpg", quality=90)
