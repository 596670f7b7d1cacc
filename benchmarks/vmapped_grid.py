"""Trains one grid twice, its runs one after another and as one program: time and agreement.

python -m benchmarks.vmapped_grid [--config=configs/digits_lt.py] --out=FOLDER [--record=FILE]

Accuracies are compared pair by pair, a run of the one way with the run of the same settings and
seed of the other. Rounding in another order makes the two part after some tens of steps, as it does
between two devices; what shows that they compute the same is the largest difference of a parameter
after a few steps in float32, and after many in float64. Times include compilation. An `--out` with
finished runs in it is refused, since they would not be timed.
"""

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags
from rich.console import Console

from benchmarks.timing import run_benchmark
from spa_jax.command_line import parse_flags, stop
from spa_jax.reporting.statistics import paired_differences
from spa_jax.sweep import sweep
from spa_jax.sweeps.grid import Axes, make_grid, parse_axes, parse_seeds
from spa_jax.training.config import Config
from spa_jax.training.devices import Layout
from spa_jax.training.program import Program, compiled_differences

_CONFIG = config_flags.DEFINE_config_file("config", "configs/digits_lt.py", "What to train.")
_AXES = flags.DEFINE_multi_string("axis", ["spa.proj.gamma=0.1,0.3,0.5,0.7,0.9"], "As for a sweep.")
_SEEDS = flags.DEFINE_string("seeds", "5", "As for a sweep.")
_OUT = flags.DEFINE_string("out", None, "Folder for the runs.", required=True)

_WAYS = {"one after another": False, "together": True}
_COLUMNS = {"test accuracy": ("test_accuracy", "last"), "held-out cosine": ("test_mean_cosine",)}


def plain(config: Config) -> Config:
    """The config without what is no training: step lines, events, plots, collapse."""
    config = config.copy_and_resolve_references()
    config.spa.method = "proj" if config.spa.method == "none" else config.spa.method
    config.checkpoint.every_epochs = config.logging.every_steps = 0
    config.logging.tensorboard = config.logging.plots = config.logging.collapse = False
    return config


def largest_difference(members: Sequence[Config], steps: int, wide: bool) -> float:
    """Of a parameter between the two ways after some steps, in float64 if `wide`."""
    program = Program(members[0], layout=Layout("vmap", members=len(members)))
    single = Program(members[0], program.data)
    together = params_after(program, members, steps, wide)
    differences = []
    for one, member in zip(together, members, strict=False):
        (alone,) = params_after(single, [member], steps, wide)
        apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, alone)
        differences += jax.tree.leaves(apart)
    return float(max(differences))


def params_after(program: Program, runs: Sequence[Config], steps: int, wide: bool) -> list[Any]:
    """The parameters of each run on the host after some steps."""

    def widen(leaf: Any) -> Any:
        return leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf

    # Everything that a step reads in float64 makes all that it computes float64.
    state, totals = program.init_state(*runs), program.zero_totals
    state = jax.tree.map(widen, state) if wide else state
    epochs = (program.batches(state, runs[0].seed, epoch) for epoch in itertools.count())
    for inputs in itertools.islice(itertools.chain.from_iterable(epochs), steps):
        state, totals = program.train_step(state, totals, inputs)
    return program.layout.unstack(jax.device_get(state.params))


def agreement(config: Config, axes: Axes, out: Path) -> list[dict[str, Any]]:
    """How far the two ways are apart after 3 steps, and in float64 after 50, over one seed."""
    members = [member.config for member in make_grid(config, axes, [config.seed], out)]
    rows = [{"type": "float32", "steps": 3, "difference": largest_difference(members, 3, False)}]
    with jax.enable_x64(True):
        difference = largest_difference(members, 50, True)
    return [*rows, {"type": "float64", "steps": 50, "difference": difference}]


def measure() -> dict[str, Any]:
    """The numbers of both ways; refuses a grid that is not one program, and runs that are there."""
    config, out = plain(_CONFIG.value), Path(_OUT.value)
    axes, seeds = parse_axes(_AXES.value), parse_seeds(_SEEDS.value)
    first, *others = [member.config for member in make_grid(config, axes, seeds, out)]
    apart = any(compiled_differences(first, other) for other in others)
    if apart or any(out.glob("*/*/summary.json")):
        stop("The axes must be ones that --together takes, and --out without runs.")
    ways, swept = {}, {}
    for name, together in _WAYS.items():
        folder = out / name.replace(" ", "_")
        began, began_working = time.perf_counter(), time.process_time()
        swept[name] = sweep(config, axes, seeds, folder, Console(width=100), together)
        ways[name] = {
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - began_working,
            "accuracies": [run["test_accuracy"]["last"] for run in swept[name]["runs"]],
        }
    in_turn, at_once = (swept[name] for name in _WAYS)
    pairs = list(zip(at_once["runs"], in_turn["runs"], strict=True))
    return {
        "hardware": in_turn["hardware"] | {"load": os.getloadavg()[1]},
        **{key: in_turn[key] for key in ("config", "axes", "seeds", "split")},
        "ways": ways,
        "differences": paired_differences(pairs, _COLUMNS),
        "agreement": agreement(config, axes, out / "agreement"),
    }


if __name__ == "__main__":
    run_benchmark("sweep", measure, flags_parser=parse_flags)
