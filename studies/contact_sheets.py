"""Draws every augmentation on a few photographs: the pictures of docs/augmentation.md.

The photographs come with scikit-learn. Rows and columns of a sheet are images as training sees
them, each pixel enlarged to a square.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_images

from spa_jax.data.augment import photometric
from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.mixing import box_share, cutmix, cutmix_box, mixup
from spa_jax.data.augment.on_host import test_image, train_image
from spa_jax.data.augment.policies import (
    apply_operation,
    autoaugment_cifar,
    make_operation,
    randaugment,
)
from spa_jax.data.augment.spatial import cutout, random_crop, random_flip

_SIDE = 40  # pixels of a picture
_ENLARGED = 3  # pixels of the sheet for one of them
_CELL = _SIDE * _ENLARGED
_GAP, _HEADER, _MARGIN, _DPI = 6, 24, 112, 100
_DRAWS = 7
# Photograph, (left, top, right, bottom) of the pagoda, the dahlia, a roof, the lake, the petals.
_CROPS = (
    (0, (20, 20, 390, 390)),
    (1, (150, 70, 460, 380)),
    (0, (90, 25, 330, 265)),
    (0, (380, 190, 610, 420)),
    (1, (220, 110, 410, 300)),
)
_PAIRS = ((0, 1), (3, 4), (1, 2))
_SHARES = (1.0, 0.85, 0.7, 0.5, 0.3, 0.15, 0.0)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Pictures in rows and columns.

    Attributes:
      pictures: for each row, `(columns, side, side, 3)` uint8.
      columns: what stands above each column; one that is called "image" is set apart.
      rows: what stands to the left of each row, if anything does.
    """

    pictures: Sequence[np.ndarray]
    columns: Sequence[str] = ("image", *[""] * _DRAWS)
    rows: Sequence[str] = ()


@functools.cache
def photographs() -> tuple[np.ndarray, ...]:
    """scikit-learn's two photographs."""
    return tuple(load_sample_images().images)


@functools.cache
def pictures() -> np.ndarray:
    """Five square cuts of them, `(5, side, side, 3)` uint8."""
    cuts = []
    for photograph, box in _CROPS:
        image = Image.fromarray(photographs()[photograph])
        cuts.append(image.crop(box).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    return np.stack(cuts)


def encoded(photograph: np.ndarray) -> bytes:
    """A photograph as a file, without loss."""
    file = io.BytesIO()
    Image.fromarray(photograph).save(file, "png")
    return file.getvalue()


def drawn(augment: Callable, image: np.ndarray, seed: int) -> np.ndarray:
    """An image as it is, and what an augmentation makes of it with each of seven keys."""
    keys = jax.random.split(jax.random.key(seed), _DRAWS)
    results = jax.jit(jax.vmap(augment, in_axes=(0, None)))(keys, jnp.asarray(image))
    return np.concatenate([image[None], np.asarray(results)])


def of_draws(augment: Callable, rows: Iterable[int] = (0, 1, 3)) -> Sheet:
    """Each row: a picture, and what an augmentation makes of it."""
    return Sheet([drawn(augment, pictures()[row], seed=row) for row in rows])


def of_amounts(functions: Mapping[str, Callable], amounts: Sequence[float]) -> Sheet:
    """Each row: an operation, and what it makes of a picture with each amount."""
    amount = jnp.asarray(amounts, jnp.float32)
    results = []
    for place, function in enumerate(functions.values()):
        every = jax.jit(jax.vmap(function, in_axes=(None, 0)))
        results.append(np.asarray(every(jnp.asarray(pictures()[place % 2]), amount)))
    return Sheet(results, [f"{value:g}" for value in amounts], list(functions))


def of_streams(data: Iterable[bytes | np.ndarray], **strength: Any) -> Sheet:
    """Each row: a picture for testing, and what a stream with one augmentation makes of it."""
    options = AugmentOptions(image_size=_SIDE, resize=_SIDE, **strength)
    results = []
    for row, image in enumerate(data):
        keys = [np.random.default_rng([row, draw]) for draw in range(_DRAWS)]
        draws = [train_image(key, image, f"row {row}", options) for key in keys]
        results.append(np.stack([test_image(image, f"row {row}", options), *draws]))
    return Sheet(results)


def flips() -> Sheet:
    """Each picture above what became of it."""
    keys = jax.random.split(jax.random.key(3), len(pictures()))
    flipped = jax.vmap(random_flip)(keys, jnp.asarray(pictures()))
    columns, rows = [""] * len(pictures()), ("image", "result")
    return Sheet([pictures(), np.asarray(flipped)], columns, rows)


def mixups() -> Sheet:
    """Pairs, mixed by falling coefficients."""
    every = jax.vmap(mixup, in_axes=(None, None, 0))
    pairs = jnp.asarray(pictures()[np.array(_PAIRS)], jnp.float32)
    mixed = [jnp.round(every(image, other, jnp.array(_SHARES))) for image, other in pairs]
    results = [np.asarray(row).astype(np.uint8) for row in mixed]
    return Sheet(results, [f"λ = {share:g}" for share in _SHARES])


def cutmixes() -> Sheet:
    """Pairs with a box of the partner; above, the share that is left of the first."""
    keys = jax.random.split(jax.random.key(25), len(_SHARES))
    boxes = [cutmix_box(key, _SIDE, _SIDE, at) for key, at in zip(keys, _SHARES, strict=True)]
    pairs = jnp.asarray(pictures()[np.array(_PAIRS)])
    results = [np.stack([cutmix(image, other, box) for box in boxes]) for image, other in pairs]
    left = [float(box_share(box, _SIDE, _SIDE)) for box in boxes]
    columns = [f"λ {share:g} → {real:.2f}" for share, real in zip(_SHARES, left, strict=True)]
    return Sheet(results, columns)


def colour_operations() -> Sheet:
    """The colour operations that have no strength, or a stepwise one."""
    functions = {
        "image": lambda image: image,
        "autocontrast": photometric.autocontrast,
        "equalize": photometric.equalize,
        "invert": photometric.invert,
        "posterize 4": lambda image: photometric.posterize(image, 4),
        "posterize 2": lambda image: photometric.posterize(image, 2),
        "solarize 192": lambda image: photometric.solarize(image, 192),
        "solarize 96": lambda image: photometric.solarize(image, 96),
    }
    images = jnp.asarray(pictures()[[0, 1, 3]])
    results = [np.stack([f(image) for f in functions.values()]) for image in images]
    return Sheet(results, list(functions))


def enhancements() -> Sheet:
    """The four blends of PIL's ImageEnhance."""
    names = ("color", "contrast", "brightness", "sharpness")
    functions = {name: getattr(photometric, name) for name in names}
    return of_amounts(functions, (0, 0.1, 0.4, 0.7, 1, 1.3, 1.6, 1.9))


def affines() -> Sheet:
    """Shears, translations and rotations, by the share of RandAugment's largest magnitude."""
    shares = (-1, -0.67, -0.33, 0, 0.33, 0.67, 1)
    results = []
    names = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
    for place, name in enumerate(names):
        image = jnp.asarray(pictures()[place % 2])
        made = [make_operation(name, share, 1, _SIDE, _SIDE) for share in shares]
        results.append(np.stack([apply_operation(operation, image) for operation in made]))
    return Sheet(results, [f"{share:g}" for share in shares], list(names))


def randaugments() -> Sheet:
    """The same draws at rising magnitudes."""
    augments = {f"M = {m}": functools.partial(randaugment, magnitude=m) for m in (3, 9, 18, 30)}
    results = [drawn(augment, pictures()[0], seed=6) for augment in augments.values()]
    return Sheet(results, rows=list(augments))


SHEETS: Mapping[str, Callable[[], Sheet]] = {
    "crop": lambda: of_draws(lambda key, image: random_crop(key, image, 5)),
    "flip": flips,
    "cutout": lambda: of_draws(lambda key, image: cutout(key, image, _SIDE // 2)),
    "mixup": mixups,
    "cutmix": cutmixes,
    "colour_operations": colour_operations,
    "enhancements": enhancements,
    "affine": affines,
    "randaugment": randaugments,
    "autoaugment": lambda: of_draws(autoaugment_cifar, range(len(_CROPS))),
    "random_resized_crop": lambda: of_streams(map(encoded, photographs())),
    "colour_jitter": lambda: of_streams(pictures()[[0, 1, 3]], color_jitter=0.4),
    "random_grey": lambda: of_streams(pictures()[[0, 1, 3]], grey=0.2),
    "gaussian_blur": lambda: of_streams(pictures()[[0, 1, 3]], blur=0.5),
}
"""By the name of the file."""


def save_sheets(folder: Path, names: Iterable[str] = SHEETS) -> None:
    """Draws sheets as `folder/<name>.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_sheet(SHEETS[name](), folder / f"{name}.png")


def save_sheet(sheet: Sheet, path: Path) -> None:
    """Writes a sheet as a PNG file, every pixel of a picture a square of whole pixels."""
    margin = _MARGIN if sheet.rows else 0
    header = _HEADER if any(sheet.columns) else 0
    apart = 2 * _GAP if sheet.columns[0] == "image" else 0
    lefts = [margin + (apart if i else 0) + i * (_CELL + _GAP) for i in range(len(sheet.columns))]
    tops = [header + i * (_CELL + _GAP) for i in range(len(sheet.pictures))]
    width, height = lefts[-1] + _CELL, tops[-1] + _CELL
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    for top, images in zip(tops, sheet.pictures, strict=True):
        for left, image in zip(lefts, images, strict=True):
            enlarged = image.repeat(_ENLARGED, axis=0).repeat(_ENLARGED, axis=1)
            figure.figimage(enlarged, left, height - top - _CELL)
    for top, label in zip(tops, sheet.rows, strict=False):
        middle = 1 - (top + _CELL / 2) / height
        figure.text((margin - 10) / width, middle, label, fontsize=11, ha="right", va="center")
    for left, label in zip(lefts, sheet.columns, strict=True):
        centre = (left + _CELL / 2) / width
        figure.text(centre, 1 - 4 / height, label, fontsize=11, ha="center", va="top")
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    Image.fromarray(pixels).save(path, optimize=True)
