"""What input from the devices' memory costs: its share of a training step.

python benchmarks/input_share.py [--config=configs/cifar10_lt.py:recipe=small] [--record=FILE]

The input of a step is looked up in the images on the device, augmented, mixed and normalised
inside the step. Here that part is compiled alone, and its time is put next to the whole step's, for
each of several augmentations. Medians of five repetitions after a warm-up.
"""

import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from spa_jax.training.feeds.batch import prepare
from spa_jax.training.program import Program
from spa_jax.training.rundir.summary import hardware

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/cifar10_lt.py:recipe=small", "What to train."
)
_STEPS = flags.DEFINE_integer("steps", 20, "Training steps in a repetition.")
_RECORD = flags.DEFINE_string("record", None, "A JSON file for the numbers.")

_REPETITIONS = 5
_AUGMENTATIONS = {
    "none": {"crop_padding": 0, "flip": False},
    "crop, flip": {"crop_padding": 4, "flip": True},
    "crop, flip, cutout": {"crop_padding": 4, "flip": True, "cutout": 16},
    "crop, flip, mixup": {"crop_padding": 4, "flip": True, "mix": "mixup"},
    "crop, flip, cutmix": {"crop_padding": 4, "flip": True, "mix": "cutmix"},
    "crop, flip, RandAugment": {"crop_padding": 4, "flip": True, "policy": "randaugment"},
    "crop, flip, AutoAugment": {"crop_padding": 4, "flip": True, "policy": "autoaugment_cifar"},
}


def milliseconds(run_steps: Callable[[], Any]) -> float:
    """Median time of a step, where `run_steps` runs the flag's number of steps and waits."""
    run_steps()
    seconds = []
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        run_steps()
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds) / _STEPS.value


def time_step(program: Program) -> tuple[float, float]:
    """Milliseconds of the whole step, and of its input alone."""
    config, feed = program.config, program.feed
    state = program.init_state(config)
    inputs = next(program.batches(state, config.seed, 0))

    def input_alone(take_part: Any, state: Any, *inputs: Any) -> Any:
        batch = feed.batch(take_part, state, *inputs)
        return prepare(state.rng, state.step, batch, config, feed.normalize).images.sum()

    compiled = program.layout.compile(input_alone, num_args=1 + feed.num_inputs)

    def run_input() -> None:
        for _ in range(_STEPS.value):
            result = compiled(state, *inputs)
        jax.block_until_ready(result)

    alone = milliseconds(run_input)
    holder = [state, program.zero_totals]

    def run_step() -> None:
        for _ in range(_STEPS.value):
            holder[:] = program.train_step(holder[0], holder[1], inputs)
        jax.block_until_ready(holder[1])

    return milliseconds(run_step), alone


def main(argv: list[str]) -> None:
    """Prints the table, and writes it where the flag says."""
    del argv
    table = Table("augmentation", "step, ms", "input alone, ms", "share")
    rows, machine, data = [], {}, None
    for name, changes in _AUGMENTATIONS.items():
        config = _CONFIG.value.copy_and_resolve_references()
        config.augment.update(changes)
        program = Program(config, data)
        data, machine = program.data, hardware(program)
        step, alone = time_step(program)
        rows.append({"augmentation": name, "step_ms": step, "input_ms": alone})
        table.add_row(name, f"{step:.1f}", f"{alone:.2f}", f"{100 * alone / step:.1f} %")
    console = Console(width=100)
    console.print(
        f"{jax.devices()[0].device_kind}, {machine['cpu_count']} CPU cores, batch "
        f"{_CONFIG.value.batch_size}, {_CONFIG.value.data.name}"
    )
    console.print(table)
    if _RECORD.value:
        record = {
            "benchmark": "input_share",
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": machine,
            "jax": jax.__version__,
            "config": _CONFIG.value.to_dict(),
            "rows": rows,
        }
        Path(_RECORD.value).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
