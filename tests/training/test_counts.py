"""Counted, not timed: what a step moves between devices, and what a run compiles."""

import logging
import re

import jax
import pytest

from benchmarks.scaling import collectives, compiled_step, expected, total_size
from spa_jax.training.devices import PARALLEL_MODES
from spa_jax.training.loop import run
from tests.parameters import first
from tests.training.small import noisy_program, small_config, small_program


@pytest.mark.parametrize("mode", first(1, PARALLEL_MODES))
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


@pytest.mark.parametrize(("data", "classes"), [(2, 4), (1, 8)])
@pytest.mark.parametrize(
    "changes", first(1, [{"method": "proj"}, {"method": "reg", "mix": "mixup"}])
)
def test_where_classes_are_cut_no_array_of_all_of_them_is_moved(changes, data, classes):
    """C = 256 classes, D = 12, B = 16; what is moved for SpA is (B, D) at most."""
    fields = {"spa__method": changes["method"], "augment__mix": changes.get("mix", "none")}
    program = noisy_program(8, mesh__classes=classes, **fields)
    state = jax.eval_shape(lambda: program.init_state(program.config))
    batch, (num_classes, dim) = 16, state.class_means.mean.shape
    found = collectives(compiled_step(program).as_text())
    added = {
        "gradients of the network": total_size(state.params["backbone"]),
        "gradients of the head": (data > 1) * (dim + 1) * num_classes // classes,
        "gradients of the features": batch // data * dim,
        "the middle of the class means": dim,
    }
    # The rest is of single examples, such as what a softmax adds up.
    rest = sum(size for name, size in found if name == "all-reduce") - sum(added.values())
    assert 0 < rest <= 9 * batch
    assert max(size for name, size in found if name != "all-reduce") == batch * dim
    evaluation = program._evaluation
    sums = evaluation.add_batch.lower(
        *program.layout.abstract((state.evaluated,), (program.places[0].evaluated,)),
        evaluation.no_sums,
        next(program.feed.evaluation("test")),
    )
    measured = program.layout.abstract((state, program.zero_totals), program.places[:2])
    for lowered in (program.measure.lower(*measured), sums):
        moved = collectives(lowered.compile().as_text())
        assert max(size for _, size in moved) <= 2 * num_classes


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
