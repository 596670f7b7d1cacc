"""Arrays through files that are used again."""

import errno
import os
import pickle

import numpy as np
import pytest

from spa_jax.data.stream import worker_processes
from spa_jax.data.stream.worker_processes import hand_over, take
from tests.refusals import refusal


def random(seed, shape=(5, 4, 3), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 5), (1, 1)])
def test_what_was_put_is_taken_in_memory_of_its_own(tmp_path, dtype, shape):
    array = random(0, shape, dtype)
    taken = take(tmp_path, pickle.loads(pickle.dumps(hand_over(tmp_path, array))))
    np.testing.assert_array_equal(taken, array, strict=True)
    assert taken.flags.writeable
    assert taken.flags.owndata


def test_a_view_with_gaps_is_put_as_it_looks(tmp_path):
    array = random(0)[::-1, ::2]
    np.testing.assert_array_equal(take(tmp_path, hand_over(tmp_path, array)), array, strict=True)


def test_arrays_wait_until_they_are_taken_and_files_are_used_again(tmp_path):
    inodes = set()
    for turn in range(4):
        arrays = [random(10 * turn + i) for i in range(3)]
        handed = [hand_over(tmp_path, array) for array in arrays]
        inodes.add(frozenset(entry.inode() for entry in os.scandir(tmp_path)))
        for i in (2, 0, 1):
            np.testing.assert_array_equal(take(tmp_path, handed[i]), arrays[i])
    assert len(inodes) == 1
    assert len(next(iter(inodes))) == 3


def test_a_smaller_array_fits_into_a_larger_one_s_file(tmp_path):
    take(tmp_path, hand_over(tmp_path, random(0, (100,))))
    small = random(1, (3, 2))
    np.testing.assert_array_equal(take(tmp_path, hand_over(tmp_path, small)), small)
    assert len(os.listdir(tmp_path)) == 1


def test_a_file_that_another_worker_claims_first_is_left_to_it(tmp_path, monkeypatch):
    take(tmp_path, hand_over(tmp_path, random(0)))
    rename = os.rename

    def too_late(source, target):
        os.unlink(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", too_late)
    array = random(1)
    handed = hand_over(tmp_path, array)
    monkeypatch.undo()
    np.testing.assert_array_equal(take(tmp_path, handed), array)


def test_a_file_that_was_cut_off_is_an_error(tmp_path):
    handed = hand_over(tmp_path, random(0))
    os.truncate(tmp_path / handed.name, 50)
    with pytest.raises(EOFError, match="10 bytes"):
        take(tmp_path, handed)


def test_a_full_file_system_is_named_with_what_to_do(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker_processes, "open", full, raising=False)
    message = refusal(hand_over, tmp_path, random(0))
    assert str(tmp_path) in message
    assert "60 bytes" in message
    assert "--shm-size" in message


def test_another_system_error_is_passed_on(tmp_path):
    tmp_path.rmdir()
    with pytest.raises(FileNotFoundError):
        hand_over(tmp_path, random(0))
