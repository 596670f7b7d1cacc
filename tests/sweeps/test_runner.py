"""Runs trained as one program: the numbers of runs of their own, in folders of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spa_jax.sweeps import device_memory, together
from spa_jax.sweeps.device_memory import members_that_fit, memory_limit
from spa_jax.sweeps.grid import make_grid
from spa_jax.sweeps.members import CannotTrainTogether, MembersLayout, MembersProgram
from spa_jax.sweeps.together import Chunk, open_chunks, train_together
from spa_jax.training.loop import run
from spa_jax.training.program import Program
from spa_jax.training.rundir.checkpoints import Checkpoints, tree_checksum
from tests.refusals import refusal
from tests.training.small import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation")

REPOSITORY = Path(__file__).parents[2]
TIMES = {"seconds", "images_per_second", "wall_time_seconds"}
STRENGTHS = {
    "reg": {"spa__weight": (0.1, 1.0, 2.0)},
    "slerp": {"spa__alpha_max": (0.1, 0.5, 0.5), "spa__threshold": (0.9, 0.9, 0.3)},
    "proj": {"spa__gamma": (0.0, 0.5, 1.0)},
}


def three_members(method):
    """Configurations that differ in everything that a program is given: five of them."""
    rows = STRENGTHS[method] | {
        "seed": (0, 7, 7),
        # Small, so that steps do not amplify the rounding of another order of sums.
        "optimizer__learning_rate": (0.03, 0.01, 0.02),
        "optimizer__weight_decay": (0.0, 5e-4, 1e-1),
    }
    members = [
        small_config(spa__method=method, **dict(zip(rows, values, strict=True)))
        for values in zip(*rows.values(), strict=True)
    ]
    return [*members, members[0], members[1]]


def after_steps(program, state, seed, steps):
    """The host copy of the state and the report after some steps of the first epoch."""
    totals = program.zero_totals
    inputs = next(program.batches(state, seed, 0))
    for _ in range(steps):
        state, totals = program.train_step(state, totals, inputs)
    report = program.evaluate(state)
    plain = state.replace(rng=jax.random.key_data(state.rng))
    return jax.device_get((plain, totals.last, report))


def of_member(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


@pytest.mark.parametrize("method", STRENGTHS)
def test_members_get_the_numbers_of_runs_of_their_own(method):
    """Five members on two devices, so that one place is filled up."""
    configs = three_members(method)
    program = MembersProgram(configs[0], len(configs), devices=jax.devices()[:2])
    assert program.size == 6
    all_of_them = after_steps(program, program.init_states(configs), 0, 3)
    single = Program(configs[0], program.data, devices=jax.devices()[:1])
    finals = []
    for i, config in enumerate(configs[:3]):
        own = after_steps(single, single.init_state(config), config.seed, 3)
        finals.append(own[0].params["head"]["kernel"])
        leaves = jax.tree_util.tree_leaves_with_path(own)
        for (path, leaf), other in zip(
            leaves, jax.tree.leaves(of_member(all_of_them, i)), strict=True
        ):
            scale = max(1.0, np.abs(np.nan_to_num(leaf)).max())
            name = f"member {i}: {jax.tree_util.keystr(path)}"
            np.testing.assert_allclose(other, leaf, rtol=0, atol=1e-5 * scale, err_msg=name)
    # They were different runs, by more than that tolerance.
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(finals[one] - finals[other]).max() > 1e-4
    jax.tree.map(
        np.testing.assert_array_equal, of_member(all_of_them, 3), of_member(all_of_them, 0)
    )


IN_FLOAT64 = """
import jax
import jax.numpy as jnp
import numpy as np
from spa_jax.sweeps.members import MembersProgram
from spa_jax.training.program import Program
from tests.training.small import small_config


def widen(leaf):
    return leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf


def params_after_50_steps(program, state, seed):
    # Everything that a step reads in float64 makes all that it computes float64.
    state, totals, steps = jax.tree.map(widen, state), program.zero_totals, 0
    for epoch in range(10):
        for inputs in program.batches(state, seed, epoch):
            state, totals = program.train_step(state, totals, inputs)
            steps += 1
    assert steps == 50
    return jax.device_get(state.params)


configs = [
    small_config(epochs=10, spa__method="proj", spa__gamma=gamma, seed=seed)
    for gamma, seed in ((0.1, 0), (0.9, 1))
]
program = MembersProgram(configs[0], 2)
together = params_after_50_steps(program, program.init_states(configs), 0)
single = Program(configs[0], program.data)
for i, config in enumerate(configs):
    alone = params_after_50_steps(single, single.init_state(config), config.seed)
    for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        assert one.dtype == other.dtype == np.float64
        print(np.abs(one[i] - other).max())
"""


def test_in_float64_fifty_steps_together_are_those_of_single_runs_to_1e_10():
    """What differs in float32 after many steps is rounding that training amplifies."""
    result = subprocess.run(
        [sys.executable, "-c", IN_FLOAT64],
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    differences = [float(line) for line in result.stdout.split()]
    assert len(differences) == 2 * 11  # each of the parameters, for each member
    assert max(differences) <= 1e-10


def grid(out, axes, seeds=(0, 1), **changes):
    changes = {"spa__method": "proj"} | changes
    return make_grid(small_config(**changes), axes, seeds, out)


def read_lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(record):
    return {key: value for key, value in record.items() if key not in TIMES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three members trained together in two chunks of two places, with plots; and what was said."""
    out = tmp_path_factory.mktemp("together")
    config = small_config(spa__method="proj", logging__plots=True, seed=5)
    members = make_grid(config, {"spa.gamma": (0.1, 0.5, 0.9)}, (5,), out)
    said = []
    train_together(members, out, at_once=2, say=said.append)
    return members, out, said


def test_each_member_leaves_what_a_run_of_its_own_leaves(finished, tmp_path):
    members, _, said = finished
    assert "3 runs together, in 2 chunk(s) of up to 2." in said
    alone = run(members[1].config, tmp_path, say=lambda line: None)
    summary, folder = members[1].summary(), members[1].folder
    assert summary.keys() == alone.keys()
    assert summary["parallel"] == "vmap"
    assert json.loads((folder / "config.json").read_text())["spa"]["gamma"] == 0.5
    for own, other in zip(read_lines(tmp_path), read_lines(folder), strict=True):
        assert own.keys() == other.keys()
        for field in own.keys() - TIMES:
            assert other[field] == pytest.approx(own[field], abs=0.02), field
    assert summary["test_accuracy"]["last"] == read_lines(folder)[-1]["test_accuracy"]
    here, there = ({path.name for path in f.iterdir()} for f in (folder, tmp_path))
    assert there <= here
    for name in ("alignment.png", "cosine_by_class_size.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_last_checkpoint_of_a_member_is_one_that_a_single_run_reads(finished):
    members, _, _ = finished
    member = members[1]  # the second of its chunk
    program = Program(member.config, devices=jax.devices()[:1])
    with Checkpoints(member.folder / "checkpoints", keep=2, say=print) as checkpoints:
        state, step = checkpoints.restore_newest(program.init_state(member.config))
    assert step == int(state.step) == 10
    assert tree_checksum(jax.device_get(state.params)) == member.summary()["params_checksum"]
    assert float(state.hyperparams["gamma"]) == np.float32(0.5)
    report = jax.device_get(program.evaluate(state))
    assert report["correct"].sum() / 600 == pytest.approx(member.summary()["test_accuracy"]["last"])


def test_nothing_of_the_chunks_is_left_and_finished_members_are_not_trained_again(finished):
    members, out, _ = finished
    assert not (out / "together").exists()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    train_together(members, out, say=pytest.fail)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


class Killed(Exception):
    """What takes a process down at a moment of the test's choice."""


def killed_at_line(monkeypatch, number):
    """Lets the given number of epoch lines be written, and stops at the next."""
    append, written = together.JsonLines.append, []

    def append_or_die(lines, record):
        if len(written) == number:
            raise Killed
        written.append(record)
        append(lines, record)

    monkeypatch.setattr(together.JsonLines, "append", append_or_die)


@pytest.mark.parametrize("every", [1, 0])
def test_a_killed_chunk_goes_on_and_ends_bit_for_bit_as_without(every, tmp_path, monkeypatch):
    axes, changes = {"spa.gamma": (0.2, 0.8)}, {"epochs": 3, "checkpoint__every_epochs": every}
    whole = grid(tmp_path / "whole", axes, (0,), **changes)
    train_together(whole, tmp_path / "whole", say=lambda line: None)
    broken = grid(tmp_path / "broken", axes, (0,), **changes)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at_line(patch, 3)  # in the middle of the second epoch's lines
        train_together(broken, tmp_path / "broken", say=lambda line: None)
    assert [len(read_lines(member.folder)) for member in broken] == [2, 1]
    (chunk,) = open_chunks(broken, tmp_path / "broken")
    assert chunk.members == broken
    assert len(list(chunk.folder.glob("checkpoints/5"))) == every
    said = []
    train_together(broken, tmp_path / "broken", at_once=1, say=said.append)
    assert said == [f"Continuing the 2 runs of {chunk.folder}."]
    for one, other in zip(whole, broken, strict=True):
        assert [line["epoch"] for line in read_lines(other.folder)] == [1, 2, 3]
        assert list(map(without_times, read_lines(one.folder))) == list(
            map(without_times, read_lines(other.folder))
        )
        assert without_times(one.summary()) == without_times(other.summary())
    assert not (tmp_path / "broken" / "together").exists()


def test_a_chunk_that_was_killed_while_it_wrote_results_only_writes_them(tmp_path, monkeypatch):
    members = grid(tmp_path, {"spa.gamma": (0.2, 0.8)}, (0,), epochs=1)

    def die(member_config, *args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(together, "write_results", die)
        train_together(members, tmp_path, say=lambda line: None)
    before = [read_lines(member.folder) for member in members]
    train_together(members, tmp_path, say=lambda line: None)
    assert [read_lines(member.folder) for member in members] == before
    assert all(member.summary()["epochs"] == 1 for member in members)


def test_lines_that_a_checkpoint_continues_from_must_be_there(tmp_path, monkeypatch):
    members = grid(tmp_path, {"spa.gamma": (0.2, 0.8)}, (0,))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at_line(patch, 3)
        train_together(members, tmp_path, say=lambda line: None)
    (members[1].folder / "metrics.jsonl").unlink()
    message = refusal(train_together, members, tmp_path, say=lambda line: None)
    assert "metrics.jsonl does not hold the epochs up to step 5" in message
    assert str(tmp_path / "together" / "0") in message


def test_a_member_that_diverges_is_recorded_and_does_not_touch_the_others(tmp_path):
    rates = {"healthy": (0.1, 0.05), "sick": (0.1, 1e6)}
    members = {
        name: grid(tmp_path / name, {"optimizer.learning_rate": values}, (0,))
        for name, values in rates.items()
    }
    said = []
    for name, of_name in members.items():
        # On one device, where the members share the convolutions.
        one = MembersProgram(of_name[0].config, 2, devices=jax.devices()[:1])
        chunk = Chunk.create(tmp_path / name, of_name, 2)
        epochs = together._Epochs(chunk, one, said.append, lambda: True, None)
        epochs.train(show_progress=False)
    fine, sick = members["sick"]
    assert sick.summary() is None
    assert "not finite at step" in sick.failure()
    assert not (sick.folder / "checkpoints").exists()
    assert f"{sick.name} failed in epoch 1; the others go on." in said
    assert fine.failure() is None
    assert without_times(fine.summary()) == without_times(members["healthy"][0].summary())
    assert sick.is_done  # and so are all: nothing is left to train
    train_together(members["sick"], tmp_path / "sick", say=pytest.fail)


def test_runs_that_cannot_be_one_program_are_refused(tmp_path):
    streamed = small_config(data__feed="stream")
    with pytest.raises(CannotTrainTogether, match=r"streamed: .*config.data.feed=device"):
        MembersProgram(streamed, 2)
    per_device = small_config(parallel="shard_map", model__batch_norm="per_device")
    with pytest.raises(CannotTrainTogether, match="batch_norm=per_device"):
        MembersProgram(per_device, 2)
    program = MembersProgram(small_config(), 2)
    message = refusal(program.init_states, [small_config(), small_config(epochs=3)])
    assert "epochs" in message


def test_a_batch_need_not_be_shared_by_the_devices_that_share_the_members():
    program = MembersProgram(small_config(batch_size=60), 8)
    assert program.size == 8
    assert program.steps_per_epoch == 6
    assert program.layout.num_devices == 1


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 50))
def test_places_are_filled_up_with_the_last_member(num_members, num_devices, fewer):
    layout = MembersLayout(num_members, jax.devices()[:num_devices])
    assert num_members <= layout.size < num_members + num_devices
    given_members = max(1, num_members - fewer)
    placed = layout.place({"a": np.arange(given_members, dtype=np.float32)})["a"]
    expected = [min(i, given_members - 1) for i in range(layout.size)]
    np.testing.assert_array_equal(placed, expected)
    sizes = {shard.data.shape[0] for shard in placed.addressable_shards}
    assert sizes == {layout.on_each}


@given(
    wanted=st.integers(1, 60),
    num_devices=st.integers(1, 8),
    images=st.integers(0, 500),
    member=st.integers(1, 100),
    limit=st.integers(1, 4000),
)
def test_chunks_fit_if_one_member_on_a_device_does(wanted, num_devices, images, member, limit):
    """A made-up program whose need is the images' bytes and so many for each member."""

    def needed(size):
        return images + member * -(-size // num_devices)

    num_devices = min(num_devices, wanted)
    size = -(-wanted // num_devices) * num_devices
    tried = [size]
    while (fitting := members_that_fit(size, wanted, num_devices, needed(size), limit)) != size:
        assert fitting < size
        assert fitting % num_devices == 0
        size = fitting
        tried.append(size)
    assert needed(size) <= limit or size == num_devices
    # Nothing was given away that fits: what is a chunk less would not.
    if len(tried) == 1:
        assert needed(size) <= limit or wanted <= num_devices
    assert members_that_fit(size, wanted, num_devices, None, limit) == size
    assert members_that_fit(size, wanted, num_devices, needed(size), None) == size


def test_a_program_of_more_members_says_that_it_needs_more():
    config = small_config(spa__method="proj")
    needs = {}
    for size in (1, 4):
        program = MembersProgram(config, size, devices=jax.devices()[:1])
        needs[size] = program.device_bytes()
        state = program.init_states([config])
        leaves = jax.tree.leaves(state.replace(rng=jax.random.key_data(state.rng)))
        assert needs[size] > program.data.train.images.nbytes + sum(leaf.nbytes for leaf in leaves)
    assert 2 * needs[1] < needs[4] < 5 * needs[1]


def test_a_grid_that_is_too_large_for_memory_is_cut_into_chunks(tmp_path, monkeypatch):
    members = grid(tmp_path, {"spa.gamma": (0.2, 0.5, 0.8)}, (0,), epochs=1)
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1])
    monkeypatch.setattr(together, "memory_limit", lambda device: 1)
    said = []
    train_together(members, tmp_path, say=said.append)
    assert said == ["3 runs together, in 3 chunk(s) of up to 1."]
    assert all(member.summary()["epochs"] == 1 for member in members)


def test_the_limit_of_a_device_is_its_own_or_its_part_of_the_main_memory(monkeypatch, tmp_path):
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 1000})
    assert memory_limit(gpu) == 900
    silent = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    assert memory_limit(silent) is None
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(device_memory, "_CONTROL_GROUP_LIMIT", tmp_path / "none")
    assert memory_limit(jax.devices()[0]) == int(0.5 * host / jax.local_device_count())
    group = tmp_path / "memory.max"
    monkeypatch.setattr(device_memory, "_CONTROL_GROUP_LIMIT", group)
    for text, total in (("max\n", host), ("1600000\n", 1600000)):
        group.write_text(text)
        assert memory_limit(jax.devices()[0]) == int(0.5 * total / jax.local_device_count())
