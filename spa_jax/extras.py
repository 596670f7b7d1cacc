"""What every command imports before all else, so that it can say what is not installed."""

from importlib.util import find_spec

from spa_jax.errors import MissingExtra

OF_TRAIN = (
    *("absl", "array_record", "filelock", "flax", "grain", "importlib_resources", "jinja2"),
    *("matplotlib", "ml_collections", "orbax", "PIL", "rich", "sklearn", "scipy"),
    "tensorflow_datasets",
)
"""What the extra `train` brings, as it is imported."""

if _lacking := [name for name in OF_TRAIN if find_spec(name) is None]:
    raise MissingExtra(
        f"This command needs {', '.join(_lacking)}, and `pip install spa_jax` alone brings what "
        "`import spa_jax` needs: pip install 'spa_jax[train]'."
    )
