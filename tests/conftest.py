"""Eight emulated devices and strict shapes; if asked for, the types of every call are checked."""

import gc
import os
import shutil
import tempfile

import jax
import jaxtyping
import matplotlib
import pytest
from hypothesis import settings
from jax.extend.backend import get_backend

from tests.devices import only_devices

matplotlib.use("Agg")
# The same examples at every run, so that what passes once passes again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


# Most of the time of the suite would go into compiling the same small programs again.
_KEEP_ALL = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
# And most of the rest into making programs fast that run once, or cutting small ones into parts.
# Newer versions do not know the second flag, and end a process that is given it.
_QUICK = "--xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):
    _QUICK += " --xla_cpu_use_fusion_emitters=false"
# Where in the source each operation comes from, which nothing here reads.
_NO_LOCATIONS = {
    "jax_include_full_tracebacks_in_locations": False,
    "jax_traceback_in_locations_limit": 0,
}
# That a process keeps from one module to the next.
_MOST_PROGRAMS = 300


def pytest_addoption(parser):
    """Tests of numbers that depend on what the compiler does are run both ways."""
    parser.addoption(
        "--optimized", action="store_true", help="compile as users do, which takes twice as long"
    )
    parser.addoption(
        "--typed", action="store_true", help="check types and shapes of every call, a quarter more"
    )


def pytest_configure(config):
    """For all processes of a session, and those that they start: quick and shared compilation."""
    if config.getoption("--typed"):  # an int is accepted for a float, as static checkers do
        checker = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
        jaxtyping.install_import_hook("spa_jax", checker)
    settings = dict(_NO_LOCATIONS)
    if not config.getoption("--optimized"):
        settings["jax_disable_most_optimizations"] = True
        flags = os.environ.get("XLA_FLAGS", "")
        if _QUICK not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} {_QUICK}".strip()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # neither a worker's nor the user's
        folder = tempfile.mkdtemp(prefix="spa_jax_compiled_")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        settings |= {"jax_compilation_cache_dir": folder} | _KEEP_ALL
    if config.getoption("markexpr") == "device":  # exact products, where TF32 would be faster
        settings["jax_default_matmul_precision"] = "highest"
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


def pytest_collection_finish(session):
    """What is there by then stays, and tracing makes many objects that are soon gone."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture
def untyped():
    """Switches the runtime type checks off, so that the library's own errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True, scope="module")
def forgotten_programs():
    """Few of the programs of a module serve the next, and all of them would fill the memory."""
    yield
    if len(get_backend().live_executables()) > _MOST_PROGRAMS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def one_device():
    """For a module of such runs."""
    with only_devices(1):
        yield


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    """Names that the examples in docstrings use without importing them."""
    import jax.numpy as jnp
    import optax

    import spa_jax

    doctest_namespace.update(jax=jax, jnp=jnp, optax=optax, spa_jax=spa_jax)
