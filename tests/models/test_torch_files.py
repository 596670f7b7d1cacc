"""Files that PyTorch wrote, and files that want more than to be read."""

import os
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from spa_jax.models.import_weights import read_tensors
from tests.models.peer_weights import RECORDED
from tests.refusals import refusal

WHOLE = np.arange(24.0, dtype=np.float32).reshape(4, 6)
# As benchmarks/peers/record_imports.py saves them.
SAVED = {
    "float": WHOLE,
    "view": WHOLE.T[1:, ::2],
    "double": WHOLE.astype(np.float64),
    "half": WHOLE.astype(np.float16),
    "bfloat16": WHOLE.astype(jnp.bfloat16),
    "parameter": WHOLE + 1,
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
}
FORMS = pytest.mark.parametrize("file", ["saved_by_torch.pth", "saved_by_torch_legacy.pth"])


@FORMS
def test_tensors_are_those_that_pytorch_saved(file):
    found = read_tensors(RECORDED / file)
    expected = {f"state_dict.{name}": array for name, array in SAVED.items()}
    expected["again.inner.float"] = WHOLE
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert not found[name].flags.writeable


def test_safetensors_are_read_in_their_own_precision():
    found = read_tensors(RECORDED / "saved.safetensors")
    assert found.keys() == SAVED.keys()
    assert found["bfloat16"].dtype == jnp.bfloat16
    for name, array in SAVED.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@FORMS
def test_a_file_that_is_cut_off_is_refused_wherever_the_cut_is(file, tmp_path):
    content, cut = (RECORDED / file).read_bytes(), tmp_path / file
    for end in (*range(0, len(content) - 1, 97), len(content) - 1):
        cut.write_bytes(content[:end])
        assert f"{cut} is cut off" in refusal(read_tensors, cut)


def test_safetensors_that_are_cut_off_are_refused(tmp_path):
    content, cut = (RECORDED / "saved.safetensors").read_bytes(), tmp_path / "cut.safetensors"
    for end in (9, 100, len(content) - 1):
        cut.write_bytes(content[:end])
        assert "cut off" in refusal(read_tensors, cut)
    assert "cannot be read (No such file" in refusal(read_tensors, tmp_path / "none")


def test_numbers_that_were_changed_are_noticed(tmp_path):
    content, changed = (RECORDED / "saved_by_torch.pth").read_bytes(), tmp_path / "changed.pth"
    numbers = WHOLE.tobytes()
    assert numbers in content
    changed.write_bytes(content.replace(numbers, numbers[::-1], 1))
    assert "cut off" in refusal(read_tensors, changed)


def test_a_whole_module_is_refused_by_name_with_what_to_save_in_its_place():
    message = refusal(read_tensors, RECORDED / "module_saved_by_torch.pth")
    assert "asks for 'torch.nn.modules.linear.Linear'" in message
    assert "torch.save(model.state_dict(), FILE)" in message


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def write_zip(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)


def write_legacy(path, pickled):
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001)]
    path.write_bytes(b"".join([*head, pickle.dumps({"little_endian": True}, 2), pickled]))


def write_bare(path, pickled):
    path.write_bytes(pickled)


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_bare])
@pytest.mark.parametrize(
    ("function", "asked", "argument"),
    [
        (os.system, f"'{os.name}.system'", "touch {}"),
        (eval, "'__builtin__.eval'", "open({!r}, 'w')"),
        (np.fromfile, "numpy", "{}"),
    ],
)
def test_nothing_that_a_file_asks_to_run_is_run(write, function, asked, argument, tmp_path):
    path, ran = tmp_path / "evil.pth", tmp_path / "ran"
    write(path, pickle.dumps({"weight": Call(function, argument.format(str(ran)))}, 2))
    message = refusal(read_tensors, path)
    assert "is refused: it asks for '" in message
    assert asked in message
    assert not ran.exists()


# Instructions of pickles: a name, a text, an integer, a storage's description, a call.
def named(module, name):
    return f"c{module}\n{name}\n".encode()


STORAGE = b"(V" + b"storage\n" + named("torch", "FloatStorage") + b"V0\nVcpu\nI6\ntQ"


def tensor(offset, shape, strides, storage=STORAGE):
    args = [f"I{offset}\n".encode()]
    args += [
        b"(" + b"".join(f"I{size}\n".encode() for size in sizes) + b"t"
        for sizes in (shape, strides)
    ]
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"".join(args) + b"tR"


def write_tensor(path, pickled, length=6, **settings):
    with zipfile.ZipFile(path, "w", **settings) as archive:
        archive.writestr("archive/data.pkl", b"(Vw\n" + pickled + b"d.")
        archive.writestr("archive/data/0", np.arange(length, dtype=np.float32).tobytes())


def test_a_tensor_takes_no_numbers_outside_of_its_own(tmp_path):
    path = tmp_path / "made.pth"
    write_tensor(path, tensor(1, (2, 2), (3, 1)))
    np.testing.assert_array_equal(read_tensors(path)["w"], [[1, 2], [4, 5]])
    for outside in (
        tensor(2, (2, 2), (3, 1)),
        tensor(-1, (2,), (1,)),
        tensor(5, (2,), (-1,)),
        tensor(0, (2**32, 2**32), (1, 1)),  # whose product is 0 in 64 bits
        tensor(0, (2,), (1, 1)),
        tensor(0, (2,), (1,), storage=b"Vstorage\n"),
    ):
        write_tensor(path, outside)
        assert "cut off" in refusal(read_tensors, path)
    write_tensor(path, tensor(0, (2,), (1,)), length=5)
    assert "w is cut off" in refusal(read_tensors, path)
    write_tensor(path, tensor(0, (2,), (1,)), compression=zipfile.ZIP_DEFLATED)
    assert "is compressed" in refusal(read_tensors, path)


def test_dictionaries_that_hold_each_other_are_entered_once(tmp_path):
    path, inner = tmp_path / "nested.pth", {}
    for _ in range(100):  # 2 to the power of 100, one by one
        inner = {"first": inner, "second": inner}
    inner["own"] = inner
    write_zip(path, pickle.dumps(inner, 2))
    assert read_tensors(path) == {}
