"""Small JPEG files, smooth as photographs are: of many sizes and modes, and folders to train on."""

import multiprocessing

import numpy as np
from jax._src import xla_bridge
from PIL import Image

from spa_jax.data.dataset import LabelledImages
from spa_jax.data.sources.image_folder import ImageFiles

NUM_IMAGES, NUM_CLASSES = 42, 4
GREY, CMYK = 5, 11  # the images of these modes; the others are RGB


def smooth_image(seed, height, width):
    """`(height, width, 3)` uint8: a few random colours, blended into each other."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC))


def image_size(number):
    """(height, width) of an image: wide and tall ones, from 30 to 100 pixels."""
    return 30 + 17 * number % 71, 30 + 29 * number % 71


class WatchedFiles(ImageFiles):
    """Image files that cannot be read in a worker process in which JAX has opened its devices."""

    def __getitem__(self, index):
        if multiprocessing.parent_process() is not None:
            assert not xla_bridge.backends_are_initialized()
        return super().__getitem__(index)


def write_tiny_jpegs(folder):
    """Writes the images; gives them, with their labels and names, as an opened data set would."""
    labels = np.arange(NUM_IMAGES, dtype=np.int32) % NUM_CLASSES
    names = [f"class_{label}/{number:02}.jpg" for number, label in enumerate(labels)]
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        mode = {GREY: "L", CMYK: "CMYK"}.get(number, "RGB")
        image = Image.fromarray(smooth_image(number, *image_size(number))).convert(mode)
        image.save(path, "JPEG", quality=90)
    return LabelledImages(WatchedFiles(folder, np.array(names)), labels, np.array(names))


def write_photographs(folder):
    """Writes `train`, with 20, 10 and 7 images of three classes, and `val`, with 4 of each."""
    for part, sizes in (("train", (20, 10, 7)), ("val", (4, 4, 4))):
        for label, size in enumerate(sizes):
            place = folder / part / f"class_{label}"
            place.mkdir(parents=True)
            for number in range(size):
                pixels = smooth_image(100 * label + number, 20 + number, 30 - number)
                Image.fromarray(pixels).save(place / f"{part}_{number}.jpg", quality=90)
    return folder
