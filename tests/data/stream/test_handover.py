"""Arrays through files that are used again."""

import errno
import os
import pickle

import numpy as np
import pytest

from spa_jax.data.stream import handover as module
from spa_jax.data.stream.handover import Handover
from tests.refusals import refusal


@pytest.fixture
def handover(tmp_path):
    return Handover(tmp_path)


def random(seed, shape=(5, 4, 3), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 5), (1, 1)])
def test_what_was_put_is_taken_in_memory_of_its_own(handover, dtype, shape):
    array = random(0, shape, dtype)
    taken = Handover(handover.folder).take(pickle.loads(pickle.dumps(handover.put(array))))
    np.testing.assert_array_equal(taken, array, strict=True)
    assert taken.flags.writeable
    assert taken.flags.owndata


def test_a_view_with_gaps_is_put_as_it_looks(handover):
    array = random(0)[::-1, ::2]
    np.testing.assert_array_equal(handover.take(handover.put(array)), array, strict=True)


def test_arrays_wait_until_they_are_taken_and_files_are_used_again(handover):
    inodes = set()
    for turn in range(4):
        arrays = [random(10 * turn + i) for i in range(3)]
        handed = [handover.put(array) for array in arrays]
        inodes.add(frozenset(entry.inode() for entry in os.scandir(handover.folder)))
        for i in (2, 0, 1):
            np.testing.assert_array_equal(handover.take(handed[i]), arrays[i])
    assert len(inodes) == 1
    assert len(next(iter(inodes))) == 3


def test_a_smaller_array_fits_into_a_larger_one_s_file(handover):
    handover.take(handover.put(random(0, (100,))))
    small = random(1, (3, 2))
    np.testing.assert_array_equal(handover.take(handover.put(small)), small)
    assert len(os.listdir(handover.folder)) == 1


def test_a_file_that_another_worker_claims_first_is_left_to_it(handover, monkeypatch):
    handover.take(handover.put(random(0)))
    rename = os.rename

    def too_late(source, target):
        os.unlink(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", too_late)
    array = random(1)
    handed = handover.put(array)
    monkeypatch.undo()
    np.testing.assert_array_equal(handover.take(handed), array)


def test_a_file_that_was_cut_off_is_an_error(handover):
    handed = handover.put(random(0))
    os.truncate(handover.folder / handed.name, 50)
    with pytest.raises(EOFError, match="10 bytes"):
        handover.take(handed)


def test_short_writes_and_reads_go_on(handover, monkeypatch):
    """The system moves at most 2 GiB at once."""

    class Short:
        def __init__(self, *args, **kwargs):
            self._file = open(*args, **kwargs)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, view):
            return self._file.write(view[:7])

        def readinto(self, view):
            return self._file.readinto(view[:7])

    monkeypatch.setattr(module, "open", Short, raising=False)
    array = random(3)
    np.testing.assert_array_equal(handover.take(handover.put(array)), array)


def test_a_full_file_system_is_named_with_what_to_do(handover, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "open", full, raising=False)
    message = refusal(handover.put, random(0))
    assert str(handover.folder) in message
    assert "60 bytes" in message
    assert "--shm-size" in message


def test_another_system_error_is_passed_on(handover):
    handover.folder.rmdir()
    with pytest.raises(FileNotFoundError):
        handover.put(random(0))
