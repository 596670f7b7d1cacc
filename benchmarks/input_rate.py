"""How fast photographs are decoded, cropped and augmented: images for each second of a core.

python -m benchmarks.input_rate [--images=256] [--rounds=5] [--record=FILE]

Prints a table for photographs of ImageNet's typical size (500x375) and of iNaturalist's (800x600),
which are cut out of scikit-learn's two sample photos and written to a temporary folder. The rates
are images a second of processor time, of this process and its workers together, because a shared
machine's clock tells little; the clock's rates are in the record. Every row is measured once a
round, and its median taken. Linux only.
"""

import contextlib
import functools
import importlib.metadata
import io
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image, features
from sklearn.datasets import load_sample_images

from benchmarks.timing import run_benchmark
from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.on_host import random_resized_crop_box
from spa_jax.data.dataset import LabelledImages
from spa_jax.data.sources.image_folder import ImageFiles
from spa_jax.data.stream.batches import HostBatch, ImageBatches, read_batches
from spa_jax.data.stream.decode import decode_crop
from spa_jax.data.stream.epoch_order import EpochOrder
from spa_jax.training.rundir.summary import processor

_IMAGES = flags.DEFINE_integer("images", 256, "Photographs of each size; two batches or more.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that everything is measured.")

_SIZES = {"500x375": (375, 500), "800x600": (600, 800)}
_QUALITY = 95
_BATCH = 64
_CROP = AugmentOptions()
_ALL = AugmentOptions(color_jitter=0.4, grey=0.2, blur=0.5)
_STREAMS = {
    "stream, 0 workers": (_CROP, 0),
    "stream, 1 worker": (_CROP, 1),
    "stream, 2 workers": (_CROP, 2),
    "all changes, 1 worker": (_ALL, 1),
}


Rate = tuple[float, float]
"""Images a second: of processor time, and of the clock."""


def write_photos(folder: Path, height: int, width: int, count: int) -> LabelledImages:
    """JPEG files cut out of two photographs, which are enlarged just so far that there is room."""
    generator = np.random.default_rng(0)
    names = np.array([f"{number:04}.jpg" for number in range(count)])
    photos = []
    for pixels in load_sample_images().images:
        photo = Image.fromarray(pixels)
        enlarged = max(1.0, 1.15 * height / photo.height, 1.15 * width / photo.width)
        size = (round(enlarged * photo.width), round(enlarged * photo.height))
        photos.append(photo.resize(size, Image.Resampling.BICUBIC))
    for number, name in enumerate(names.tolist()):
        photo = photos[number % len(photos)]
        left = int(generator.integers(0, photo.width - width + 1))
        top = int(generator.integers(0, photo.height - height + 1))
        part = photo.crop((left, top, left + width, top + height))
        part.save(folder / name, "JPEG", quality=_QUALITY)
    return LabelledImages(ImageFiles(folder, names), np.zeros(count, np.int32), names)


def processor_seconds() -> float:
    """Processor time so far of this process, its threads and its children that live."""
    ticks = 0
    for pid in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])  # in user mode, in the system
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_until_idle() -> None:
    """Until the workers have filled their buffers."""
    before = -1.0
    while before != (now := processor_seconds()):
        before = now
        time.sleep(0.5)


def time_calls(function: Callable[[bytes], Any], files: list[bytes]) -> Rate:
    """Calls a function on every file in this thread."""
    wait_until_idle()
    began, processor = time.perf_counter(), time.process_time()
    for content in files:
        function(content)
    processor, clock = time.process_time() - processor, time.perf_counter() - began
    return len(files) / processor, len(files) / clock


def time_stream(stream: Generator[HostBatch, None, None], workers: int, batches: int) -> Rate:
    """Takes batches out of a running stream.

    All the work of as many batches as are taken lies between two times at which the workers'
    buffers are full. The clock starts when the buffers have been emptied.
    """
    buffered = 4 * max(1, workers)
    wait_until_idle()
    processor = processor_seconds()
    for _ in range(buffered):
        next(stream)
    began = time.perf_counter()
    for _ in range(batches):
        next(stream)
    clock = time.perf_counter() - began
    wait_until_idle()
    processor = processor_seconds() - processor
    return (buffered + batches) * _BATCH / processor, batches * _BATCH / clock


def pillow(content: bytes) -> Image.Image:
    """Decodes to RGB at full size."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def rates_of(examples: LabelledImages) -> dict[str, np.ndarray]:
    """The rates of all rows in all rounds, `(rounds, 2)`."""
    files = [examples.images[i] for i in range(len(examples))]
    box = functools.partial(random_resized_crop_box, np.random.default_rng(0))
    calls: dict[str, Callable[[bytes], Any]] = {
        "bare decode": pillow,
        "bare decode to an array": lambda content: np.asarray(pillow(content)),
        "bare decode, crop, resize": lambda content: np.asarray(
            decode_crop(content, "a photo", box, 224)
        ),
    }
    order = EpochOrder(0, len(examples), _BATCH)
    with contextlib.ExitStack() as stack:
        timers = {name: functools.partial(time_calls, call, files) for name, call in calls.items()}
        for name, (options, workers) in _STREAMS.items():
            rows, steps = np.arange(_BATCH), range(10**9)
            batches = ImageBatches(examples, rows, options, steps, _BATCH, order)
            stream = read_batches(batches, workers)
            stack.enter_context(contextlib.closing(stream))
            next(stream)  # starts the workers
            timers[name] = functools.partial(time_stream, stream, workers, len(files) // _BATCH)
        rounds = [{name: timer() for name, timer in timers.items()} for _ in range(_ROUNDS.value)]
    return {name: np.array([rates[name] for rates in rounds]) for name in timers}


def summarize(rates: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Medians, and the share of the bare decode's rate in the same round."""
    shares = {
        "share_of_bare_decode": "bare decode",
        "share_of_decode_crop_resize": "bare decode, crop, resize",
    }
    rows = {}
    for name, found in rates.items():
        processor, clock = np.median(found, axis=0)
        rows[name] = {"images_per_processor_second": processor, "images_per_second": clock}
        for share, of in shares.items():
            rows[name][share] = np.median(found[:, 0] / rates[of][:, 0])
    return rows


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpu": processor(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg(),
        "pillow": features.version("pil"),
        "libjpeg_turbo": features.version("libjpeg_turbo"),
        "numpy": np.__version__,
        "grain": importlib.metadata.version("grain"),
    }


def measure() -> dict[str, Any]:
    """The numbers of photographs of all sizes."""
    numbers: dict[str, Any] = {"machine": machine(), "quality": _QUALITY, "sizes": {}}
    for size, (height, width) in _SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            examples = write_photos(Path(folder), height, width, _IMAGES.value)
            bytes_of_all = sum(file.stat().st_size for file in Path(folder).iterdir())
            rows = summarize(rates_of(examples))
        numbers["sizes"][size] = {"kilobytes": bytes_of_all / 1000 / len(examples), "rows": rows}
    return numbers


if __name__ == "__main__":
    run_benchmark("input_rate", measure)
