"""What alignment costs: counted from compiled programs, not timed."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import spa_jax

C, D = 256, 1024
OPTIONS = {None: (D, C), 0: (C, D)}


def functions(class_axis):
    """Each of the three variants, and the cosines, of a kernel, its gradient and class means."""
    options = {"classifier": "w", "class_axis": class_axis}
    tx = spa_jax.spa_proj(0.6, **options)
    return {
        "proj": lambda w, g, m: tx.update({"w": g}, tx.init({"w": w}), {"w": w}, class_means=m),
        "slerp": lambda w, g, m: spa_jax.spa_slerp({"w": w}, m, 0.02, **options),
        "reg": lambda w, g, m: jax.grad(lambda w: spa_jax.spa_reg({"w": w}, m, **options))(w),
        "cosines": lambda w, g, m: spa_jax.class_cosines({"w": w}, m, **options),
    }


def arguments(class_axis, put=lambda x, *spec: x):
    shape = OPTIONS[class_axis]
    rng = np.random.default_rng(0)
    split = [None, None]
    split[1 if class_axis is None else 0] = "classes"
    w, g = (put(rng.normal(size=shape).astype(np.float32), *split) for _ in range(2))
    mean = put(rng.normal(size=(C, D)).astype(np.float32), "classes", None)
    return w, g, spa_jax.ClassMeans(mean, put(np.ones(C, bool), "classes"))


@pytest.fixture
def one_device(monkeypatch):
    """What is traced where there is a single device, on one of the eight."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


@pytest.mark.parametrize("class_axis", [None, 0])
@pytest.mark.parametrize(
    ("name", "most"), [("proj", 36), ("slerp", 31), ("reg", 22), ("cosines", 19)]
)
def test_a_kernel_is_read_and_written_a_few_times(name, most, class_axis, one_device):
    """In units of the kernel: a sum of two is 3. Both branches of each choice count; one runs."""
    program = jax.jit(functions(class_axis)[name]).lower(*arguments(class_axis)).compile()
    assert program.cost_analysis()["bytes accessed"] / (4 * C * D) < most


@pytest.mark.parametrize("name", ["proj", "slerp", "reg", "cosines"])
def test_one_device_gives_what_several_give(name, one_device, monkeypatch):
    f, args = functions(None)[name], arguments(None)
    alone = jax.jit(f)(*args)
    monkeypatch.undo()
    several = jax.jit(functions(None)[name])(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone, several)


@pytest.mark.parametrize("class_axis", [None, 0])
@pytest.mark.parametrize("name", ["proj", "slerp", "reg", "cosines"])
def test_a_head_that_is_sharded_over_classes_is_never_gathered(name, class_axis):
    mesh = jax.make_mesh((8,), ("classes",), axis_types=(AxisType.Auto,))
    put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))  # noqa: E731
    args = arguments(class_axis, put)
    program = jax.jit(functions(class_axis)[name]).lower(*args).compile()
    assert "all-gather" not in program.as_text()
    assert "all-to-all" not in program.as_text()
    expected = jax.jit(functions(class_axis)[name])(*arguments(class_axis))
    compare = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)  # noqa: E731
    jax.tree.map(compare, program(*args), expected)


def test_the_cost_of_class_sums_does_not_grow_with_batch_times_classes():
    batch, classes, dim = 64, 100_000, 8
    features, labels = jnp.ones((batch, dim)), jnp.arange(batch)
    sums = jax.jit(spa_jax.class_sums, static_argnums=2)
    cost = sums.lower(features, labels, classes).compile().cost_analysis()
    assert cost["bytes accessed"] < 10 * 4 * classes * dim  # a few passes over the sums
    assert cost.get("flops", 0) < batch * classes / 10  # and no product of (B, C)
    assert int(sums(features, labels, classes)[1].sum()) == batch


@pytest.mark.parametrize("name", ["proj", "slerp", "reg", "cosines"])
def test_outside_of_a_program_a_second_call_compiles_nothing(name, caplog):
    f, args = functions(None)[name], arguments(None)
    f(*args)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        f(*args)
        jax.jit(lambda x: x - 3)(args[0])
    compiled = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    assert len(compiled) == 1  # the one that shows that they are counted
