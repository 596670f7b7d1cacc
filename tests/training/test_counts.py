"""Counted, not timed: what a step moves between devices, and what a run compiles."""

import logging
import re

import jax
import pytest

from spa_jax.training.devices import PARALLEL_MODES
from spa_jax.training.loop import run
from tests.training.small import small_config, small_program


def collectives(text):
    """Of a compiled program: name of each collective, and how many numbers it has as results."""
    pattern = r"= (.*?) (all-\w+|reduce-scatter|collective-\w+)(?:-start)?\("
    return [
        (name, sum(count(shape) for shape in re.findall(r"\w\d+\[([\d,]*)\]", results)))
        for results, name in re.findall(pattern, text)
    ]


def count(shape):
    product = 1
    for side in filter(None, shape.split(",")):
        product *= int(side)
    return product


def total_size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("mode", PARALLEL_MODES)
def test_a_step_adds_up_gradients_class_sums_and_batch_statistics_and_moves_nothing_else(mode):
    config = small_config(spa__method="proj", parallel=mode, model__small__widths=(4,))
    program = small_program(config, num_devices=8)
    state = program.init_state(config)
    inputs = next(program.batches(state, 0, 0))
    step = jax.jit(lambda *args: program.train_step(*args))
    found = collectives(step.lower(state, program.zero_totals, inputs).compile().as_text())
    assert {name for name, _ in found} == {"all-reduce"}
    loss_and_accuracy, classes, dim = 2, *state.class_means.mean.shape
    needed = total_size(state.params) + classes * dim + classes + loss_and_accuracy
    # Mean and variance of each layer, and in the backward pass two sums of each.
    statistics = total_size(state.batch_stats)
    moved = sum(size for _, size in found)
    if mode == "jit":  # where sums of the backward pass that are gradients too are taken once
        assert needed + statistics <= moved <= needed + 2 * statistics
    else:
        assert moved == needed + 2 * statistics


def test_a_run_compiles_each_of_its_programs_once(tmp_path, caplog):
    config = small_config(spa__method="proj", model__small__widths=(5,), logging__every_steps=2)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(config, tmp_path, small_program(config), say=lambda line: None)
    programs = re.findall(r"Compiling jit\((.*?)\) ", caplog.text)
    assert programs == [
        "nothing",  # sums of no test image
        "create",  # totals of no step
        "init_variables",
        "_start_run",
        "draw_orders",  # the order of an epoch
        "train",
        "_measure",
        "_add_batch",  # of test images
        "_report_on",
    ]
