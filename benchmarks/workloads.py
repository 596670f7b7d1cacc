"""What benchmarks of whole steps train on."""

import dataclasses
from collections.abc import Callable

import numpy as np

from spa_jax.data.dataset import LabelledImages, LongTailedDataset
from spa_jax.training.config import Config


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is trained, and how it is timed.

    Attributes:
      recipe: the configuration.
      shape: of an image; None: the data of the configuration.
      classes: how many.
      steps: in one measurement.
      rounds: measurements of each variant.
    """

    recipe: Callable[[], Config]
    shape: tuple[int, int, int] | None = None
    classes: int = 10
    steps: int = 1
    rounds: int = 15


def noise(workload: Workload, batch_size: int) -> LongTailedDataset | None:
    """Images of noise, as many as two batches and every class need."""
    if workload.shape is None:
        return None
    generator, count = np.random.default_rng(0), max(2 * batch_size, workload.classes)
    images = generator.integers(0, 256, (count, *workload.shape), np.uint8)
    examples = LabelledImages(images, np.arange(count, dtype=np.int32) % workload.classes)
    names = tuple(map(str, range(workload.classes)))
    return LongTailedDataset("noise", examples, examples, names, {})
