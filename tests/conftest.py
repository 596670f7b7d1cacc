"""Eight emulated devices, strict shapes, and runtime type checks on the whole package."""

import os
import shutil
import tempfile

import jax
import jaxtyping
import matplotlib
import pytest
from hypothesis import settings

matplotlib.use("Agg")
# The same examples at every run, so that what passes once passes again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# An int is accepted where a float is annotated, as static type checkers do.
jaxtyping.install_import_hook(
    "spa_jax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)


# Most of the time of the suite would go into compiling the same small programs again.
_KEEP_ALL = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def pytest_configure(config):
    """Lets all processes of a session, and those that they start, share what they compile."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return  # a worker's, or the user's
    folder = tempfile.mkdtemp(prefix="spa_jax_compiled_")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    for name, value in ({"jax_compilation_cache_dir": folder} | _KEEP_ALL).items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


@pytest.fixture
def untyped():
    """Switches the runtime type checks off, so that the library's own errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def quick_compilation():
    """For modules that compile much, run it little, and compare what depends on no optimisation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    """Names that the examples in docstrings use without importing them."""
    import jax.numpy as jnp
    import optax

    import spa_jax

    doctest_namespace.update(jax=jax, jnp=jnp, optax=optax, spa_jax=spa_jax)
