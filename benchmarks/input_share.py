"""What input from the devices' memory costs: its share of a training step.

python -m benchmarks.input_share [--config=configs/cifar10_lt.py:recipe=small] [--record=FILE]

The input of a step is looked up in the images on the device, augmented, mixed and normalised
inside the step. Here that part is compiled alone, and its time is put next to the whole step's, for
each of several augmentations. Medians of five repetitions after a warm-up, both in turn.
"""

import functools
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from benchmarks.timing import Stepper, interleaved_seconds, run_benchmark
from spa_jax.training.config import resolve
from spa_jax.training.devices import OWN
from spa_jax.training.feeds.batch import prepare
from spa_jax.training.program import Program
from spa_jax.training.rundir.summary import hardware
from spa_jax.training.state import STATE_PLACES

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/cifar10_lt.py:recipe=small", "What to train."
)
_STEPS = flags.DEFINE_integer("steps", 20, "Training steps in a repetition.")

_CROP_AND_FLIP = {"crop_padding": 4, "flip": True}
_AUGMENTATIONS = {
    "none": {"crop_padding": 0, "flip": False},
    "crop, flip": _CROP_AND_FLIP,
    "crop, flip, cutout": _CROP_AND_FLIP | {"cutout": 16},
    "crop, flip, mixup": _CROP_AND_FLIP | {"mix": "mixup"},
    "crop, flip, cutmix": _CROP_AND_FLIP | {"mix": "cutmix"},
    "crop, flip, RandAugment": _CROP_AND_FLIP | {"policy": "randaugment"},
    "crop, flip, AutoAugment": _CROP_AND_FLIP | {"policy": "autoaugment_cifar"},
}


def input_of(program: Program) -> Callable[[], Any]:
    """Makes the input of a step alone."""
    config, feed = program.config, program.feed
    options = resolve(config)
    state = program.init_state(config)
    inputs = next(iter(program.batches(state, config.seed, 0)))

    def input_alone(state: Any, inputs: Any) -> Any:
        batch = feed.batch(state, inputs)
        parts = (options.augment, options.views, feed.normalize)
        return prepare(state.rng, state.step, batch, *parts).images.sum()

    compiled = program.layout.compile(input_alone, (STATE_PLACES, feed.places), OWN)
    return functools.partial(compiled, state, inputs)


def measure() -> dict[str, Any]:
    """The rows of all augmentations."""
    rows, machine, data = [], {}, None
    for name, changes in _AUGMENTATIONS.items():
        config = _CONFIG.value.copy_and_resolve_references()
        config.augment.update(changes)
        program = Program(config, data)
        data, machine = program.data, hardware(program.layout)
        calls = {"step_ms": Stepper(program), "input_ms": input_of(program)}
        seconds = interleaved_seconds(calls, rounds=5, repeated=_STEPS.value)
        times = {part: 1e3 * time for part, time in seconds.items()}
        rows.append({"augmentation": name, **times})
    return {"hardware": machine, "config": _CONFIG.value.to_dict(), "rows": rows}


if __name__ == "__main__":
    run_benchmark("input_share", measure)
