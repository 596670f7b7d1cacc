"""Draws every augmentation on a few photographs: the pictures of docs/augmentation.md.

python benchmarks/contact_sheets.py [--out=docs/augmentation] [--only=cutout,mixup]

The photographs come with scikit-learn. Rows and columns of a sheet are images as training sees
them, each pixel enlarged to a square.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_images

from spa_jax.data.augment import affine, photometric
from spa_jax.data.augment import on_host as host_augment
from spa_jax.data.augment.mixing import box_share, cutmix, cutmix_box, mixup
from spa_jax.data.augment.policies import autoaugment_cifar, randaugment
from spa_jax.data.augment.spatial import cutout, random_crop, random_flip

_OUT = flags.DEFINE_string("out", "docs/augmentation", "Folder for the pictures.")
_ONLY = flags.DEFINE_list("only", [], "Names of the sheets to draw; all if empty.")

_SIDE = 40  # pixels of a picture
_ENLARGED = 3  # pixels of the sheet for one of them
_CELL = _SIDE * _ENLARGED
_GAP, _HEADER, _MARGIN, _DPI = 6, 24, 112, 100
# (photograph, top, left, side) of the pagoda, the dahlia, a roof, the lake and the petals.
_CROPS = (
    (0, 20, 20, 370),
    (1, 70, 150, 310),
    (0, 25, 90, 240),
    (0, 190, 380, 230),
    (1, 110, 220, 190),
)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Pictures in rows and columns.

    Attributes:
      name: of the file.
      columns: what stands above each column; one that is called "image" is set apart.
      rows: what stands to the left of each row; empty strings for nothing.
      pictures: for each row, `(columns, side, side, 3)` uint8.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[str]
    pictures: Sequence[np.ndarray]


@functools.cache
def photographs() -> tuple[np.ndarray, ...]:
    """scikit-learn's two photographs."""
    return tuple(load_sample_images().images)


@functools.cache
def pictures() -> np.ndarray:
    """Five square cuts of them, `(5, side, side, 3)` uint8."""
    cuts = []
    for photograph, top, left, side in _CROPS:
        cut = photographs()[photograph][top : top + side, left : left + side]
        size, shrink = (_SIDE, _SIDE), Image.Resampling.LANCZOS
        cuts.append(np.asarray(Image.fromarray(cut).resize(size, shrink)))
    return np.stack(cuts)


def drawn(augment: Callable, image: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """An image as it is, and what an augmentation makes of it with each of `count` keys."""
    keys = jax.random.split(jax.random.key(seed), count)
    results = jax.jit(jax.vmap(augment, in_axes=(0, None)))(keys, jnp.asarray(image))
    return np.concatenate([image[None], np.asarray(results)])


def of_draws(name: str, augment: Callable, rows: Sequence[int], count: int = 7) -> Sheet:
    """Each row: a picture, and what an augmentation makes of it."""
    results = [drawn(augment, pictures()[row], count, seed=row) for row in rows]
    return Sheet(name, ["image", *[""] * count], [""] * len(rows), results)


def of_factors(name: str, functions: dict[str, Callable], amounts: Sequence[float]) -> Sheet:
    """Each row: an operation, and what it makes of a picture with each amount."""
    amount = jnp.asarray(amounts, jnp.float32)
    results = []
    for place, function in enumerate(functions.values()):
        image = jnp.asarray(pictures()[place % 2])
        every = jax.jit(jax.vmap(function, in_axes=(None, 0)))
        results.append(np.asarray(every(image, amount)))
    return Sheet(name, [f"{value:g}" for value in amounts], list(functions), results)


def flips() -> Sheet:
    """Each picture above what became of it."""
    keys = jax.random.split(jax.random.key(3), len(pictures()))
    flipped = jax.vmap(random_flip)(keys, jnp.asarray(pictures()))
    columns = [""] * len(pictures())
    return Sheet("flip", columns, ["image", "result"], [pictures(), np.asarray(flipped)])


def cutouts() -> Sheet:
    """Squares of half the side, at random places."""
    return of_draws("cutout", lambda key, image: cutout(key, image, _SIDE // 2), (0, 1, 3))


def mixups() -> Sheet:
    """Pairs, mixed by falling coefficients."""
    shares = (1.0, 0.85, 0.7, 0.5, 0.3, 0.15, 0.0)
    every = jax.vmap(mixup, in_axes=(None, None, 0))
    results = []
    for own, partner in ((0, 1), (3, 4), (1, 2)):
        image, other = jnp.asarray(pictures()[[own, partner]], jnp.float32)
        mixed = every(image, other, jnp.array(shares))
        results.append(np.asarray(jnp.round(mixed)).astype(np.uint8))
    return Sheet("mixup", [f"λ = {share:g}" for share in shares], [""] * 3, results)


def cutmixes() -> Sheet:
    """Pairs with a box of the partner; above, the share that is left of the first."""
    shares = (1.0, 0.85, 0.7, 0.5, 0.3, 0.15, 0.0)
    keys = jax.random.split(jax.random.key(25), len(shares))
    boxes = [cutmix_box(key, _SIDE, _SIDE, share) for key, share in zip(keys, shares, strict=True)]
    results = []
    for own, partner in ((0, 1), (3, 4), (1, 2)):
        image, other = jnp.asarray(pictures()[[own, partner]])
        results.append(np.stack([cutmix(image, other, box) for box in boxes]))
    left = [float(box_share(box, _SIDE, _SIDE)) for box in boxes]
    columns = [f"λ {share:g} → {real:.2f}" for share, real in zip(shares, left, strict=True)]
    return Sheet("cutmix", columns, [""] * 3, results)


def histograms() -> Sheet:
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
    rows = (0, 1, 3)
    results = [
        np.stack([f(jnp.asarray(pictures()[row])) for f in functions.values()]) for row in rows
    ]
    return Sheet("colour_operations", list(functions), [""] * len(rows), results)


def enhancements() -> Sheet:
    """The four blends of PIL's ImageEnhance."""
    functions = {
        "color": photometric.color,
        "contrast": photometric.contrast,
        "brightness": photometric.brightness,
        "sharpness": photometric.sharpness,
    }
    return of_factors("enhancements", functions, (0, 0.1, 0.4, 0.7, 1, 1.3, 1.6, 1.9))


def affines() -> Sheet:
    """Shears, translations and rotations, by the share of RandAugment's largest magnitude."""
    far = 150 / 331 * _SIDE
    functions = {
        "shear_x": lambda image, share: affine.shear_x(image, 0.3 * share, 128),
        "shear_y": lambda image, share: affine.shear_y(image, 0.3 * share, 128),
        "translate_x": lambda image, share: affine.translate_x(image, far * share, 128),
        "translate_y": lambda image, share: affine.translate_y(image, far * share, 128),
        "rotate": lambda image, share: affine.rotate(image, 30 * share, 128),
    }
    return of_factors("affine", functions, (-1, -0.67, -0.33, 0, 0.33, 0.67, 1))


def randaugments() -> Sheet:
    """The same draws at rising magnitudes."""
    magnitudes = (3, 9, 18, 30)
    results = [
        drawn(functools.partial(randaugment, magnitude=m), pictures()[0], 7, seed=6)
        for m in magnitudes
    ]
    rows = [f"M = {magnitude}" for magnitude in magnitudes]
    return Sheet("randaugment", ["image", *[""] * 7], rows, results)


def resized_crops() -> Sheet:
    """Each row: the centre of a photograph, and random-resized crops of it."""
    options = host_augment.StreamOptions(image_size=_SIDE, resize=_SIDE, flip=False)
    results = []
    for row, photograph in enumerate(photographs()):
        encoded = io.BytesIO()
        Image.fromarray(photograph).save(encoded, "png")
        data, name = encoded.getvalue(), f"photograph {row}"
        crops = [
            host_augment.train_image(np.random.default_rng([row, draw]), data, name, options)
            for draw in range(7)
        ]
        results.append(np.stack([host_augment.test_image(data, name, options), *crops]))
    return Sheet("random_resized_crop", ["image", *[""] * 7], [""] * len(results), results)


def streamed(name: str, **strength: float) -> Sheet:
    """Each row: a picture, and what a stream with one augmentation makes of it."""
    options = host_augment.StreamOptions(_SIDE, _SIDE, flip=False, **strength)
    results = []
    for row, picture in enumerate(pictures()[[0, 1, 3]]):
        draws = [
            host_augment.train_image(np.random.default_rng([row, draw]), picture, name, options)
            for draw in range(7)
        ]
        results.append(np.stack([picture, *draws]))
    return Sheet(name, ["image", *[""] * 7], [""] * len(results), results)


SHEETS: dict[str, Callable[[], Sheet]] = {
    "crop": lambda: of_draws("crop", lambda key, image: random_crop(key, image, 5), (0, 1, 3)),
    "flip": flips,
    "cutout": cutouts,
    "mixup": mixups,
    "cutmix": cutmixes,
    "colour_operations": histograms,
    "enhancements": enhancements,
    "affine": affines,
    "randaugment": randaugments,
    "autoaugment": lambda: of_draws("autoaugment", autoaugment_cifar, range(5)),
    "random_resized_crop": resized_crops,
    "colour_jitter": lambda: streamed("colour_jitter", color_jitter=0.4),
    "random_grey": lambda: streamed("random_grey", grey=0.2),
    "gaussian_blur": lambda: streamed("gaussian_blur", blur=0.5),
}


def draw(sheet: Sheet, folder: Path) -> Path:
    """Writes a sheet as a PNG file, every pixel of a picture a square of whole pixels."""
    margin = _MARGIN if any(sheet.rows) else 0
    header = _HEADER if any(sheet.columns) else 0
    apart = 2 * _GAP if sheet.columns[0] == "image" else 0
    lefts = [margin + (apart if i else 0) + i * (_CELL + _GAP) for i in range(len(sheet.columns))]
    tops = [header + i * (_CELL + _GAP) for i in range(len(sheet.rows))]
    width, height = lefts[-1] + _CELL, tops[-1] + _CELL
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    enlarge = np.ones((_ENLARGED, _ENLARGED, 1), np.uint8)
    for top, label, images in zip(tops, sheet.rows, sheet.pictures, strict=True):
        middle = 1 - (top + _CELL / 2) / height
        figure.text((margin - 10) / width, middle, label, fontsize=11, ha="right", va="center")
        for left, image in zip(lefts, images, strict=True):
            figure.figimage(np.kron(image, enlarge), left, height - top - _CELL)
    for left, label in zip(lefts, sheet.columns, strict=True):
        centre = (left + _CELL / 2) / width
        figure.text(centre, 1 - 4 / height, label, fontsize=11, ha="center", va="top")
    canvas.draw()
    path = folder / f"{sheet.name}.png"
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).save(path, optimize=True)
    return path


def main(argv: list[str]) -> None:
    """Draws the sheets and says how large they are."""
    del argv
    folder = Path(_OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _ONLY.value or SHEETS:
        path = draw(SHEETS[name](), folder)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    app.run(main)
