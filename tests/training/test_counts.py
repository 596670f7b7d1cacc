"""Counted, not timed: what a step moves between devices, and what a run compiles."""

import logging
import re

import jax
import pytest

from benchmarks.scaling import collectives, compiled_step, expected
from spa_jax.training.devices import PARALLEL_MODES
from spa_jax.training.loop import run
from tests.training.small import small_config, small_program


@pytest.mark.parametrize("mode", PARALLEL_MODES)
def test_a_step_adds_up_gradients_class_sums_and_batch_statistics_and_moves_nothing_else(mode):
    config = small_config(spa__method="proj", parallel=mode, model__small__widths=(4,))
    program = small_program(config, num_devices=8)
    found = collectives(compiled_step(program).as_text())
    assert {name for name, _ in found} == {"all-reduce"}
    numbers = expected(program.init_state(config))
    needed, moved = sum(numbers.values()), sum(size for _, size in found)
    if mode == "jit":  # where sums of the backward pass that are gradients too are taken once
        assert needed - numbers["their gradients"] <= moved <= needed
    else:
        assert moved == needed


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
