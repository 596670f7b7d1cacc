"""Decodes every file of a data set once and lists the bad ones.

python -m spa_jax.data.check CONFIG [--config.data.FIELD=VALUE ...]

CONFIG is what train.py takes as --config. Ends with status 1 if a file cannot be decoded, with 2 if
the data set cannot be opened at all.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import spa_jax.extras  # noqa: F401

from absl import flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.progress import track

from spa_jax.data.augment.augment_options import AugmentOptions
from spa_jax.data.augment.on_host import test_image
from spa_jax.data.data_options import DataOptions
from spa_jax.data.dataset import EncodedImages, LabelledImages
from spa_jax.data.sources.opening import load_data
from spa_jax.errors import InputError, one_line

_CHUNK = 256  # files between two movements of the bar


def bad_files(examples: LabelledImages, what: str = "") -> list[str]:
    """Decodes each image once, behind a progress bar.

    Args:
      examples: whose images may be arrays or features, of which there is nothing to decode.
      what: they are, for the bar.

    Returns:
      What is wrong with each image that cannot be decoded, which names it.
    """
    images, names, options = examples.images, examples.names, AugmentOptions()
    if not isinstance(images, EncodedImages):
        return []

    def fault_of(index: int) -> str:
        name = f"image {index} of {examples.origin}" if names is None else str(names[index])
        try:
            test_image(images[index], name, options)
        except InputError as error:
            return str(error)
        return ""

    console, found = Console(stderr=True), []
    chunks = [range(len(images))[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    with ThreadPoolExecutor() as threads:
        for chunk in track(chunks, what, console=console, disable=not console.is_terminal):
            found += filter(None, threads.map(fault_of, chunk))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the data of the configuration that the arguments name."""
    parser = argparse.ArgumentParser(
        prog="python -m spa_jax.data.check", description="Decodes every file of a data set once."
    )
    parser.add_argument("config", metavar="CONFIG", help="as train.py takes it in --config")
    values, overrides = parser.parse_known_args(argv)
    arguments = [parser.prog, f"--config={values.config}", *overrides]
    known = flags.FlagValues()
    logging.set_verbosity(logging.ERROR)  # a file that returns nothing is told of below
    config_flags.DEFINE_config_file("config", flag_values=known, sys_argv=arguments)
    try:
        config = _read_config(known, arguments)
        data = load_data(DataOptions(**config.data))
    except (InputError, OSError, LookupError, AttributeError, ValueError, TypeError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    parts = {"training": data.train, "test": data.test, "validation": data.validation}
    there = {f"{part} images": examples for part, examples in parts.items() if examples is not None}
    bad = [fault for what, examples in there.items() for fault in bad_files(examples, what)]
    count = sum(map(len, there.values()))
    print("\n".join([*bad, f"{len(bad):,} of the {count:,} images cannot be decoded."]))
    return 1 if bad else 0


def _read_config(known: flags.FlagValues, arguments: Sequence[str]) -> Any:
    """The configuration; InputError for whatever its file raises, and for arguments beside it."""
    try:
        rest, config = known(arguments)[1:], known.config
    except Exception as error:  # a configuration file may raise any
        raise InputError(f"{arguments[1]}: {type(error).__name__}: {error}") from error
    if rest:
        raise InputError(
            f"Unknown arguments: {' '.join(rest)}. Fields are set with --config.FIELD=VALUE."
        )
    if not hasattr(config, "data"):
        raise InputError(
            f"{arguments[1]} returns {type(config).__name__}, and get_config has to return a "
            "ConfigDict with a group `data`, such as train.py takes."
        )
    return config


if __name__ == "__main__":
    sys.exit(main())
