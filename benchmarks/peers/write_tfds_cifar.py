"""Writes CIFAR-10 as TFDS prepares it, from arrays that are already here.

python -m benchmarks.peers.write_tfds_cifar --npz=FOLDER --data_dir=FOLDER

Needs `pip install 'spa_jax[prepare]'`. FOLDER of `--npz` holds `train.npz` and `test.npz`, with
`image` uint8 (N, 32, 32, 3) and `label`, in the official order. TFDS itself encodes, shuffles and
shards them, so that reading can be tried and timed on a machine that cannot download the archive.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import app, flags

_NPZ = flags.DEFINE_string("npz", None, "Folder with train.npz and test.npz.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS's folder of data sets.", required=True)
_SHARDS = flags.DEFINE_integer("shards", 4, "Files a split.", lower_bound=1)

_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


_OfTfds: Any = tfds.builder_cls("cifar10")


class Cifar10(_OfTfds, skip_registration=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
    """TFDS's own builder, with its features, version and keys, and other input."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        self.info.features["label"].names = list(_CLASSES)
        return {
            split: self._generate_examples(f"{split}_", [Path(_NPZ.value) / f"{split}.npz"])
            for split in ("train", "test")
        }

    def _generate_examples(
        self, split_prefix: str, filepaths: Iterable[Path]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        (path,) = filepaths
        with np.load(path) as arrays:
            images, labels = arrays["image"], arrays["label"]
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            # TFDS shuffles by a hash of the key, which is the place in the official order.
            name = f"{split_prefix}{place:05d}"
            yield place, {"id": name, "image": image, "label": int(label)}


def main(argv: list[str]) -> None:
    del argv
    builder = Cifar10(data_dir=_DATA_DIR.value, file_format="array_record")
    how = tfds.download.DownloadConfig(num_shards=_SHARDS.value, try_download_gcs=False)
    builder.download_and_prepare(download_config=how)
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    print(f"{builder.data_dir}: {sizes}, {_SHARDS.value} files a split")


if __name__ == "__main__":
    app.run(main)
