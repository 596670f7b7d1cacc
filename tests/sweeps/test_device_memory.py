"""How many members fit into memory: as many as do, in chunks of about one size."""

import os
from types import SimpleNamespace

import jax
from hypothesis import given
from hypothesis import strategies as st

from spa_jax.sweeps import chunks
from spa_jax.sweeps.chunks import members_that_fit, memory_limit


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


def test_the_limit_of_a_device_is_its_own_or_its_part_of_the_main_memory(monkeypatch, tmp_path):
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 1000})
    assert memory_limit(gpu) == 900
    silent = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    assert memory_limit(silent) is None
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(chunks, "_CONTROL_GROUP_LIMIT", tmp_path / "none")
    assert memory_limit(jax.devices()[0]) == int(0.5 * host / jax.local_device_count())
    group = tmp_path / "memory.max"
    monkeypatch.setattr(chunks, "_CONTROL_GROUP_LIMIT", group)
    for text, total in (("max\n", host), ("1600000\n", 1600000)):
        group.write_text(text)
        assert memory_limit(jax.devices()[0]) == int(0.5 * total / jax.local_device_count())
