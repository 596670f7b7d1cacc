"""What a data parallel training step moves between devices, counted from its compiled program."""

import math
import re
from typing import Any

import jax

from spa_jax.training.program import Program


def collectives(text: str) -> list[tuple[str, int]]:
    """Name of each collective of a compiled program, and how many numbers it has as results.

    Example:
      >>> collectives("%a = (f32[4,2]{1,0}, f32[]) all-reduce-start(%b, %c), channel_id=1")
      [('all-reduce', 9)]
    """
    pattern = r"= (.*?) (all-[a-z-]+?|ragged-[a-z-]+?|reduce-scatter|collective-\w+)(?:-start)?\("
    return [
        (name, sum(_count(shape) for shape in re.findall(r"\w\d+\[([\d,]*)\]", results)))
        for results, name in re.findall(pattern, text)
    ]


def expected(state: Any) -> dict[str, int]:
    """How many numbers data parallelism has to add up, item by item.

    Mean and variance of each normalisation are needed twice: their sums in the forward pass, and
    as many in the backward pass, which `jit` takes from gradients where they are the same.

    Args:
      state: a :class:`spa_jax.training.state.TrainState`, abstract or not.
    """
    classes, dim = state.class_means.mean.shape
    return {
        "gradients": total_size(state.params),
        "class means": classes * dim + classes,
        "batch statistics": total_size(state.batch_stats),
        "their gradients": total_size(state.batch_stats),
        "loss, accuracy": 2,
    }


def compiled_step(program: Program) -> Any:
    """The step of a program of resident data, as it runs; nothing is computed."""
    state = jax.eval_shape(lambda: program.init_state(program.config, resumed=True))
    inputs = jax.eval_shape(lambda state: next(program.batches(state, 0, 0)), state)
    step = jax.jit(lambda *args: program.train_step(*args))
    args = program.layout.abstract((state, program.zero_totals, inputs), program.places)
    return step.lower(*args).compile()


def _count(shape: str) -> int:
    return math.prod(int(side) for side in shape.split(",") if side)


def total_size(tree: Any) -> int:
    """Numbers in all arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
