"""Downloads data sets and writes them as ArrayRecord files, once, with TFDS and TensorFlow.

python -m spa_jax.data.prepare NAME [NAME...] [--data_dir=FOLDER]

Training reads what this writes, and needs no TensorFlow.
"""

import argparse
import hashlib
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spa_jax.extras  # noqa: F401

import numpy as np

from spa_jax.data.dataset import Source, check_every_class
from spa_jax.data.sources.cifar_files import LABELS_SHA256
from spa_jax.data.sources.tfds_records import import_tfds
from spa_jax.data.sources.tfds_source import (
    check_known,
    image_fields,
    prepared_folder,
    read_tfds,
    tfds_data_dir,
)
from spa_jax.errors import InputError, first_three, one_line, with_status
from spa_jax.files import output_folder

CHECKSUMS = {
    "cifar10": {
        "train labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test labels": LABELS_SHA256["test_batch.bin"],
    },
    "cifar100": {
        "train labels": LABELS_SHA256["train.bin"],
        "test labels": LABELS_SHA256["test.bin"],
        "train images": "4e457917601a66aed021f5fa37957b56c6319557c0a8ed5484de3c390af45430",
        "test images": "4cb8e5d9309da489bf6b19cc10cd96c3ae6f8daf225380b605aaee4c0d6aee19",
    },
}
"""SHA-256 of published data sets in the official order, labels as one byte each."""


def prepare(name: str, data_dir: str) -> str:
    """Prepares a data set, unless that was done before, reads it back and checks it.

    Args:
      name: as for :func:`spa_jax.data.sources.tfds_source.read_tfds`.
      data_dir: the folder of prepared data sets; "" is TFDS's own.

    Returns:
      What is there now and where, in a few lines.

    Raises:
      InputError: an unknown name, no TensorFlow, archives that have to be fetched by hand, a
        download that failed or has the wrong checksum, or a data set that is not what it should be.
    """
    known = prepared_folder(name, data_dir)
    folder = known or _write(name, data_dir)
    source = read_tfds(name, data_dir)
    check_every_class(f"{name} in {folder}", source.train.labels, source.class_names)
    check_content(source, folder)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    checked = "; labels and order are the published ones" if source.name in CHECKSUMS else ""
    sizes = (getattr(part.images, "shape", ())[1:] for part in (source.train, source.test))
    train, test = ("x".join(map(str, size)) or "encoded" for size in sizes)
    place = f" --source={shlex.quote(data_dir)}" if data_dir else ""
    lines = [
        f"{name} {'was already' if known else 'is'} prepared in {folder}",
        f"  {len(source.train):,} images ({train}) to train on, "
        f"{len(source.test):,} images ({test}) to test on",
        f"  {len(source.class_names)} classes, {source.order} order{checked}",
        f"  {len(files)} files, {megabytes:,.1f} MB",
        *(f"  index of labels: {file}" for file in files if file.suffix == ".npz"),
        f"  next: python -m spa_jax.data.describe {name}{place}",
    ]
    return "\n".join(lines)


def check_content(source: Source, folder: Path) -> None:
    """Raises InputError if what :data:`CHECKSUMS` knows of a data set is not what was read."""
    for what, expected in CHECKSUMS.get(source.name, {}).items():
        part, kind = what.split()
        examples = source.train if part == "train" else source.test
        content = examples.images if kind == "images" else examples.labels.astype(np.uint8)
        found = hashlib.sha256(np.ascontiguousarray(content).data).hexdigest()
        if found != expected:
            raise InputError(
                f"The {what} of {source.name} in {folder} are not those that were published: "
                f"SHA-256 {found}, expected {expected}. Remove the folder and prepare the data set "
                "again."
            )


@with_status
def main(argv: Sequence[str] | None = None) -> None:
    """Prepares the data sets that the arguments name; 2 with a message if one cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m spa_jax.data.prepare",
        description="Downloads data sets and writes them as ArrayRecord files.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="as cifar10, or any name of TFDS")
    parser.add_argument("--data_dir", default="", help="where to; TFDS's own folder otherwise")
    values = parser.parse_args(argv)
    for name in values.names:
        print(prepare(name, values.data_dir))


def _write(name: str, data_dir: str) -> Path:
    """Lets TFDS download and write a data set; returns its folder."""
    tfds = import_tfds()
    check_known(name, data_dir)
    place = str(output_folder(tfds_data_dir(data_dir), "--data_dir", patterns=True))
    # Otherwise TensorFlow reports each processor feature that it would use.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        importlib.import_module("tensorflow")
        builder = tfds.builder(name, data_dir=place, file_format="array_record")
    except ImportError as error:
        raise InputError(
            f"{name} is not prepared yet, and to prepare it takes TensorFlow ({one_line(error)}): "
            "pip install 'spa_jax[prepare]', in an environment of its own if you like. Reading it "
            "afterwards takes none."
        ) from error
    except (AssertionError, ValueError, TypeError) as error:
        raise InputError(f"TFDS cannot prepare {name}: {one_line(error)}") from error
    image_fields(builder, f"data set {name}")
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not any(_manual_folder(builder).glob("*")):
        raise InputError(f"{name} has to be fetched by hand first. {_archives(builder)}")
    _download_and_prepare(builder, name)
    return Path(builder.data_dir)


def _download_and_prepare(builder: Any, name: str) -> None:
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    config = import_tfds().download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except NonMatchingChecksumError as error:
        raise InputError(
            f"An archive of {name} is not the published one. {one_line(error)} Remove that file "
            "and run the command again."
        ) from error
    except Exception as error:  # TFDS, TensorFlow and what unpacks archives raise many kinds
        raise InputError(
            f"TFDS could not prepare {name} ({one_line(error)}). {_archives(builder)}"
        ) from error


def _manual_folder(builder: Any) -> Path:
    """Where TFDS looks for archives that were fetched by other means."""
    return Path(builder.data_dir_root) / "downloads" / "manual"


def _archives(builder: Any) -> str:
    """Which archives a data set is made from, and where to put them."""
    folder, said = _manual_folder(builder), builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if said:
        return f"Its archives belong in {folder}; TFDS says: {one_line(said)}"
    urls = f" ({first_three(list(builder.url_infos))})" if builder.url_infos else ""
    return (
        f"If this machine cannot download, fetch the archives{urls} elsewhere, put them in "
        f"{folder} and run the command again."
    )


if __name__ == "__main__":
    sys.exit(main())
