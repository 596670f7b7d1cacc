"""Image data sets that TFDS has prepared as ArrayRecord files, read without TensorFlow."""

import difflib
import math
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from spa_jax.data.dataset import Source
from spa_jax.data.sources.tfds_records import (
    DECODED_CHANNELS,
    Fields,
    TfdsImages,
    import_tfds,
    in_threads,
    read_split,
)
from spa_jax.errors import InputError, one_line
from spa_jax.files import local_path

MAX_DECODED_BYTES = 2 * 1024**3
"""Data sets whose images are all of one size and take less than this are decoded at once."""

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.\-]+))?(:(?P<version>[\d*]+\.[\d*]+\.[\d*]+))?")
_FILE_NAME_FIELDS = ("file_name", "filename", "image/filename")


def read_tfds(name: str, data_dir: str) -> Source:
    """Reads an image classification data set that TFDS has prepared.

    The training examples are the split `train`. The test examples are the split `test`, or
    `validation` where there is no `test` or its images have no labels: `imagenet2012` and
    `i_naturalist2018` are tested on `validation`, `imagenet_lt` on `test`.

    Images of one size that take less than 2 GiB are decoded into one array; others stay encoded
    and are read from their files one by one. TFDS stores examples shuffled. Where they have ids
    such as "train_00042" (CIFAR-10 and CIFAR-100) they are put back into the published order;
    otherwise they stay as they are stored, which is the same after each preparation.

    Args:
      name: "name", "name/config", "name:version" or "name/config:version"; without a version the
        newest that is prepared.
      data_dir: the folder of prepared data sets; "" is TFDS's own, which is the environment
        variable TFDS_DATA_DIR or else `~/tensorflow_datasets`.

    Returns:
      The data set: images uint8 `(N, H, W, channels)` or encoded, labels int32, the class names of
      TFDS (for `imagenet2012` they are WordNet ids such as "n01440764"), and file names where the
      data set has them.

    Raises:
      InputError: a data set that is not prepared, unknown, in another file format, damaged, or not
        one of labelled images; a class without a training image.
    """
    import_tfds()
    folder = prepared_folder(name, data_dir)
    if folder is None:
        raise _not_prepared(name, data_dir)
    builder = _open(folder, prepare_command(name, data_dir))
    info = builder.info
    fields = image_fields(builder, f"data set in {folder}")
    counts = {
        split: info.splits[split].num_examples
        for split in ("train", _test_split(builder, folder, fields))
    }
    image = info.features[fields.image]
    shape = tuple(image.shape)
    if image.np_dtype != "uint8" or len(shape) != 3:
        raise InputError(
            f"The images in {folder} are {image.np_dtype} of shape {shape}; expected uint8 of "
            "shape (height, width, channels): choose another data set or configuration."
        )
    one_size = None not in shape and shape[-1] in DECODED_CHANNELS
    decoded = one_size and sum(counts.values()) * math.prod(shape) < MAX_DECODED_BYTES
    (train, official), (test, _) = (
        read_split(folder, split, fields, count, shape if decoded else None)
        for split, count in counts.items()
    )
    full_name = "/".join(filter(None, (info.name, info.config_name)))
    class_names = tuple(info.features[fields.label].names)
    return Source(full_name, train, test, class_names, "official" if official else "stored")


def is_tfds_dir(folder: Path, name: str) -> bool:
    """Whether a folder holds the named data set as TFDS prepares it, in whatever file format."""
    return _NAME.fullmatch(name) is not None and bool(_prepared(folder, name))


def prepared_folder(name: str, data_dir: str) -> Path | None:
    """The folder `name[/config]/version` of a prepared data set; None if there is none.

    Args:
      name, data_dir: as for :func:`read_tfds`.

    Returns:
      An absolute path, of the newest version that fits the name.

    Raises:
      InputError: a name that is not of TFDS's form, or several configurations to choose from.
    """
    found = _prepared(tfds_data_dir(data_dir), name)
    configs = sorted({each.parent.name for each in found})
    if len(configs) > 1:
        raise InputError(
            f"{name} is prepared in {len(configs)} configurations ({', '.join(configs[:3])}): "
            f"choose one, for example {_set_name(name)}/{configs[0]}."
        )
    return max(found, key=lambda each: [int(n) for n in each.name.split(".")], default=None)


def tfds_data_dir(data_dir: str) -> Path:
    """The folder of prepared data sets as an absolute path; "" is TFDS's own."""
    own = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(os.path.abspath(local_path(data_dir or own, "The folder of prepared data sets")))


def prepare_command(name: str, data_dir: str) -> str:
    """The command line that prepares a data set."""
    where = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    return f"python -m spa_jax.data.prepare {name}{where}"


def check_known(name: str, data_dir: str) -> None:
    """Raises InputError, with the nearest names, if TFDS has no data set of that name."""
    tfds = import_tfds()
    known = tfds.list_builders(with_community_datasets=False)
    data_set = _set_name(name)
    if data_set not in known:
        near = difflib.get_close_matches(data_set, known)
        advice = f"did you mean {' or '.join(near)}?" if near else "check the name."
        raise InputError(
            f"TFDS {tfds.__version__} has no data set {data_set!r}, and none of that name is "
            f"prepared in {tfds_data_dir(data_dir)}: {advice}"
        )


def image_fields(builder: Any, what: str) -> Fields:
    """Which features hold the image, its class, its id and its file name.

    Args:
      builder: TFDS's, of a data set that need not be prepared yet.
      what: the data set in words, for the message.

    Raises:
      InputError: a data set without an image and a class.
    """
    tfds = import_tfds()
    features = builder.info.features
    kinds = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    images, labels, texts = (
        [key for key, each in kinds.items() if isinstance(each, kind)]
        for kind in (tfds.features.Image, tfds.features.ClassLabel, tfds.features.Text)
    )
    file_name = next((key for key in _FILE_NAME_FIELDS if key in texts), "")
    for keys in (builder.info.supervised_keys, ("image", "label")):
        if isinstance(keys, tuple) and len(keys) == 2 and keys[0] in images and keys[1] in labels:
            return Fields(*keys, "id" if "id" in texts else "", file_name)
    described = ", ".join(f"{key} ({type(each).__name__})" for key, each in kinds.items())
    raise InputError(
        f"The {what} is not one of image classification: expected the features image "
        f"(Image) and label (ClassLabel), found {described or type(features).__name__}."
    )


def _set_name(name: str) -> str:
    return re.split("[/:]", name)[0]


def _prepared(data_dir: Path, name: str) -> list[Path]:
    """Folders of the versions and configurations that a name fits."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"{name!r} is not a name of TFDS: expected name, name/config, name:version or "
            "name/config:version, such as cifar10 or cifar10:3.0.2."
        )
    top, wanted = data_dir / match["set"], match["version"] or "*.*.*"
    return [
        info.parent
        for config in ([match["config"]] if match["config"] else [".", "*"])
        for info in top.glob(f"{config}/{wanted}/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)
    ]


def _not_prepared(name: str, data_dir: str) -> InputError:
    check_known(name, data_dir)
    place = tfds_data_dir(data_dir)
    others = sorted(str(each.relative_to(place)) for each in _prepared(place, _set_name(name)))
    beside = f", only {', '.join(others[:3])} is" if others else ""
    return InputError(
        f"{name} is not prepared in {place}{beside}. Prepare it once: "
        f"{prepare_command(name, data_dir)}"
    )


def _open(folder: Path, command: str) -> Any:
    """TFDS's builder of a prepared data set, set to its ArrayRecord files."""
    from google.protobuf.json_format import ParseError

    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(folder)
    except (ParseError, OSError, ValueError, LookupError, AttributeError) as error:
        raise InputError(
            f"The description of the data set in {folder} cannot be read ({one_line(error)}): "
            "update tensorflow-datasets if a newer one wrote it; otherwise remove the folder and "
            f"prepare the data set again: {command}"
        ) from error
    formats = builder.info.available_file_formats()
    if tfds.core.FileFormat.ARRAY_RECORD not in formats:
        raise InputError(
            f"{folder} is prepared in the format {', '.join(each.value for each in formats)}; "
            "without TensorFlow array_record is needed. Remove or rename the folder and prepare "
            f"the data set again: {command}"
        )
    splits = builder.info.splits
    if "train" not in splits or not splits["train"].num_examples:
        raise InputError(
            f"The data set in {folder} has no split `train` to train on, only "
            f"{', '.join(splits) or 'no split'}: choose another data set."
        )
    # If there are files of several formats, this makes the builder name those of ArrayRecord.
    builder.as_data_source("train", file_format=tfds.core.FileFormat.ARRAY_RECORD)
    return builder


def _test_split(builder: Any, folder: Path, fields: Fields) -> str:
    """The split to test on, after a look at the files of both splits."""
    splits = builder.info.splits
    _check_shards(builder, "train", folder)
    for split in ("test", "validation"):
        if split in splits and splits[split].num_examples:
            _check_shards(builder, split, folder)
            # TFDS gives -1 to every image of a split whose labels were never published.
            first = TfdsImages(folder, split, fields.image, np.arange(1)).record(0)
            if first[fields.label] >= 0:
                return split
    raise InputError(
        f"The data set in {folder} has neither a split `test` nor `validation` with labels, only "
        f"{', '.join(splits)}: choose another data set, or prepare one that has a test set."
    )


def _check_shards(builder: Any, split: str, folder: Path) -> None:
    """Raises InputError unless each file is there and holds as many records as described."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = builder.info.splits[split]
    paths = [Path(path) for path in info.filepaths]

    def fault_of(path: Path, expected: int) -> str:
        try:
            reader = ArrayRecordReader(str(path))
            found = reader.num_records()
            reader.close()
        except RuntimeError:  # a file that is too short, or ends in something else than a footer
            found = 0
        state = f"holds {found} of {expected} records" if path.exists() else "is missing"
        return f"{path.name} {state}" if found != expected else ""

    faults = list(filter(None, in_threads(fault_of, paths, info.shard_lengths)))
    if faults:
        raise InputError(
            f"{len(faults)} of the {len(paths)} files of the split `{split}` in {folder} are not "
            f"whole: {'; '.join(faults[:3])}. Copy them again, or remove the folder and "
            "prepare the data set again."
        )
