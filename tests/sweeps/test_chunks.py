"""Chunks of members: as many as fit into memory, recorded while they are open."""

import jax
import pytest

from spa_jax.sweeps import chunks
from spa_jax.sweeps.chunks import Chunk, open_chunks, program_of_chunk, program_that_fits
from spa_jax.sweeps.grid import make_grid
from spa_jax.training.devices import Layout
from spa_jax.training.program import Program
from tests.training.small import small_config


def grid(out, strengths=(0.2, 0.5, 0.8)):
    config = small_config(spa__method="proj", model__small__widths=(4,))
    return make_grid(config, {"spa.proj.gamma": strengths}, [0], out)


@pytest.mark.thorough
def test_a_program_of_more_members_says_that_it_needs_more(tmp_path):
    config, needs = grid(tmp_path)[0].config, {}
    for size in (1, 3):
        program = Program(config, layout=Layout("vmap", jax.devices()[:1], size))
        needs[size] = program.device_bytes()
        state = program.init_state(config)
        leaves = jax.tree.leaves(state.replace(rng=jax.random.key_data(state.rng)))
        assert needs[size] > program.data.train.images.nbytes + sum(leaf.nbytes for leaf in leaves)
    assert 2 * needs[1] < needs[3] < 4 * needs[1]


@pytest.mark.thorough
def test_a_grid_is_cut_into_chunks_that_fit_into_memory(tmp_path, on_devices, monkeypatch):
    on_devices(1)
    members, said = grid(tmp_path), []
    assert program_that_fits(members, 2, said.append).layout.size == 2
    monkeypatch.setattr(chunks, "memory_limit", lambda device: 1)
    assert program_that_fits(members, None, said.append).layout.size == 1
    monkeypatch.setattr(chunks, "memory_limit", lambda device: None)
    assert program_that_fits(members, None, said.append).layout.size == 3
    assert said == [
        "3 runs together, in 2 chunk(s) of up to 2.",
        "3 runs together, in 3 chunk(s) of up to 1.",
        "3 runs together, in 1 chunk(s) of up to 3.",
    ]


def test_a_chunk_is_known_by_its_members_until_it_is_closed(tmp_path):
    members = grid(tmp_path)
    first, second = (
        Chunk.create(tmp_path, members[:2], 2),
        Chunk.create(tmp_path, members[2:], 2),
    )
    assert open_chunks(members, tmp_path) == [first, second]
    assert open_chunks(members[:2], tmp_path) == [first]
    assert open_chunks(members[1:], tmp_path) == [second]
    first.close()
    assert open_chunks(members, tmp_path) == [second]
    second.close()
    assert not (tmp_path / "together").exists()


def test_a_chunk_goes_on_with_the_size_that_it_began_with_on_other_devices(tmp_path, on_devices):
    chunk = Chunk.create(tmp_path, grid(tmp_path), 4)
    for number, used in ((8, 4), (3, 2), (1, 1)):
        on_devices(number)
        layout = program_of_chunk(chunk).layout
        assert (layout.size, layout.mesh.size) == (4, used)
