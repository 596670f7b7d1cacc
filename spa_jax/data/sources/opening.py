"""Opens a labelled data set by name, whatever its files look like."""

from pathlib import Path

from spa_jax.data.dataset import Source
from spa_jax.data.sources.cifar_files import is_cifar_folder, read_cifar
from spa_jax.data.sources.idx import FASHION_MNIST_HELP, is_idx_folder, read_idx_folder
from spa_jax.data.sources.image_folder import is_image_folder, read_image_folder
from spa_jax.data.sources.npz import is_npz_folder, read_npz
from spa_jax.data.sources.tfds_source import is_tfds_dir, read_tfds
from spa_jax.data.splits.lists import read_listed_folder
from spa_jax.errors import InputError


def open_source(
    name: str, folder: str, verify: bool = True, train_list: str = "", test_list: str = ""
) -> Source:
    """Reads a data set from where it is.

    What the folder holds is told from its content: the official CIFAR files (binary or pickled),
    idx files, `train.npz` and `test.npz`, `train/CLASS/*.jpg` and a `val` or `test` folder beside
    it, or data sets that TFDS has prepared.

    Args:
      name: the data set's name; for TFDS any of its names.
      folder: where the files are; "" is the place where TFDS keeps what it has prepared.
      verify: check the official CIFAR files against their published checksums.
      train_list: a split list that is going to be joined to the data; "" for none. With both lists
        a folder of images may have any subfolders.
      test_list: the same for the test images.

    Returns:
      The whole data set.

    Raises:
      InputError: nothing there, something that is none of these, or a broken data set.
    """
    if not folder:
        return read_tfds(name, "")
    path = Path(folder).expanduser()
    if not path.is_dir():
        how = f" {FASHION_MNIST_HELP}." if name == "fashion_mnist" else ""
        raise InputError(
            f"There is no folder {path} with {name}: correct config.data.folder, or leave it empty "
            f"and prepare the set once with `python -m spa_jax.data.prepare {name}`.{how}"
        )
    if is_tfds_dir(path, name):
        return read_tfds(name, str(path))
    if name in ("cifar10", "cifar100") and is_cifar_folder(path):
        return read_cifar(name, path, verify)
    if is_idx_folder(path):
        return read_idx_folder(name, path)
    if is_npz_folder(path):
        return read_npz(name, path)
    if is_image_folder(path):
        return read_image_folder(name, path)
    if train_list and test_list:
        return read_listed_folder(name, path, Path(train_list), Path(test_list))
    raise InputError(
        f"{path} holds nothing that can be read as {name}: expected a data set prepared by TFDS "
        f"(`python -m spa_jax.data.prepare {name} --data_dir={path}`), the official CIFAR files, "
        "idx files, train.npz and test.npz, train/CLASS/*.jpg beside a val or test folder, or any "
        "folder of images with config.data.train_list and config.data.test_list."
    )
