"""Every transform under every optax wrapper: the wrapped numbers are the unwrapped ones."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import spa_jax

pytestmark = pytest.mark.filterwarnings("ignore:spa_slerp.* turns a bfloat16 kernel")

C, D, IN, UNSEEN = 5, 7, 3, 4
STRENGTH = 0.25  # exact in bf16, in which inject_hyperparams holds it beside bf16 parameters
DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16}
TOLERANCE = {"f32": 1e-6, "bf16": 2e-2}


class Case(NamedTuple):
    name: str
    make: Any
    strength: str
    options: dict[str, str]
    first: bool


CASES = [
    Case(f"proj-{r}-{a}", spa_jax.spa_proj, "gamma", {"radial": r, "acts_on": a}, a == "gradients")
    for r, a in itertools.product(("keep", "scale"), ("gradients", "updates"))
] + [Case("slerp", spa_jax.spa_slerp_transform, "alpha", {}, False)]


# Each radial form, each place in the chain and SLERP in each dtype, without their whole product.
IN_DTYPES = [
    *((case, dtype) for case, dtype in zip(CASES, itertools.cycle(DTYPES), strict=False)),
    (CASES[0], "bf16"),
    (CASES[-1], "bf16"),
]
# What a wrapper that is compiled sees: the first link, the last link and SLERP.
COMPILED = [(CASES[0], "f32"), (CASES[3], "bf16"), (CASES[-1], "f32")]
in_dtypes = pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(*pair, marks=() if pair in COMPILED else pytest.mark.thorough)
        for pair in IN_DTYPES
    ],
    ids=[f"{case.name}-{dtype}" for case, dtype in IN_DTYPES],
)
when_compiled = pytest.mark.parametrize(
    ("case", "dtype"), COMPILED, ids=[f"{case.name}-{dtype}" for case, dtype in COMPILED]
)
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def tree(seed, dtype="f32"):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), DTYPES[dtype])  # noqa: E731
    return {"body": {"kernel": draw(IN, D)}, "head": {"bias": draw(C), "kernel": draw(D, C)}}


def transposed(params):
    return params | {"head": params["head"] | {"kernel": params["head"]["kernel"].T}}


@functools.cache
def means(seed):
    features = np.random.default_rng(100 + seed).normal(size=(12, D)).astype(np.float32)
    with jax.ensure_compile_time_eval():  # the cache must not hold what a trace made
        fresh = spa_jax.ClassMeans.create(num_classes=C, dim=D)
        return fresh.update(features, np.arange(12) % UNSEEN)


def link(case, strength=STRENGTH, **options):
    return case.make(**{case.strength: strength}, **case.options, **options)


base = functools.partial(optax.sgd, 0.5, momentum=0.9)


def optimiser(case, spa=None):
    spa = spa or link(case)
    return optax.chain(spa, base()) if case.first else optax.chain(base(), spa)


def update(tx, dtype="f32", state=None, **extras):
    """Updates and state of one step from the initial parameters."""
    params = tree(0, dtype)
    state = tx.init(params) if state is None else state
    return tx.update(tree(1, dtype), state, params, class_means=means(0), **extras)


def run(tx, dtype, gradients=None, shown=means, jit=False):
    """Parameters and state after each step, one for each of the gradients."""

    def step(params, state, grads, class_means):
        updates, state = tx.update(grads, state, params, class_means=class_means)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    params, history = tree(0, dtype), []
    state = tx.init(params)
    for t, grads in enumerate(gradients or [tree(1 + t, dtype) for t in range(3)]):
        params, state = step(params, state, grads, shown(t))
        history.append((params, state))
    return history


@functools.cache
def plain(name, dtype, jit=False):
    """Parameters after three steps without a wrapper."""
    (case,) = (case for case in CASES if case.name == name)
    return run(optimiser(case), dtype, jit=jit)[-1][0]


def spa_state(state):
    is_spa = lambda n: isinstance(n, (spa_jax.SpaProjState, spa_jax.SpaSlerpState))  # noqa: E731
    (found,) = filter(is_spa, jax.tree.leaves(state, is_leaf=is_spa))
    return found


def assert_close(actual, desired, dtype="f32"):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), **tolerance)


def avals(state):
    return jax.tree.map(lambda x: (x.shape, x.dtype, bool(x.weak_type)), state)


@in_dtypes
def test_only_rows_of_seen_classes_in_the_head_change_and_dtypes_stay(case, dtype):
    given, got = tree(1, dtype), update(link(case), dtype)[0]
    assert avals(given) == avals(got)
    np.testing.assert_array_equal(given["body"]["kernel"], got["body"]["kernel"])
    np.testing.assert_array_equal(given["head"]["bias"], got["head"]["bias"])
    given, got = np.asarray(given["head"]["kernel"]), np.asarray(got["head"]["kernel"])
    np.testing.assert_array_equal(given[:, UNSEEN], got[:, UNSEEN])
    assert np.any(given[:, :UNSEEN] != got[:, :UNSEEN])


HEAD, REST = {"body": False, "head": True}, {"body": True, "head": False}
LABELS = {"body": {"kernel": "rest"}, "head": {"bias": "head", "kernel": "head"}}
WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.identity(), optax.chain(tx)),
    "named_chain": lambda tx: optax.named_chain(("before", optax.identity()), ("spa", tx)),
    "masked": lambda tx: optax.chain(optax.masked(tx, HEAD), optax.masked(base(), REST)),
    "partition": lambda tx: optax.partition({"head": tx, "rest": base()}, LABELS),
}


@in_dtypes
@pytest.mark.parametrize("wrapper", list(WRAPPERS))
def test_a_wrapper_leaves_the_numbers_alone(case, dtype, wrapper):
    params, state = run(WRAPPERS[wrapper](optimiser(case)), dtype)[-1]
    assert_close(params, plain(case.name, dtype), dtype)
    assert int(spa_state(state).count) == 3


@when_compiled
def test_multi_steps_takes_one_step_per_optimiser_step_with_the_means_of_that_step(case, dtype):
    micro = [tree(1 + t, dtype) for t in range(6)]
    mean = lambda a, b: (a + (b.astype("float32") - a) / 2).astype(a.dtype)  # noqa: E731
    merged = [jax.tree.map(mean, *micro[t : t + 2]) for t in (0, 2, 4)]
    expected = run(optimiser(case), dtype, merged, jit=True)
    # The first half of each step shows other means, which must not be used.
    shown = lambda t: means(t // 2) if t % 2 else means(50 + t)  # noqa: E731
    history = run(optax.MultiSteps(optimiser(case), 2), dtype, micro, shown, jit=True)
    for step, (params, _) in enumerate(expected):
        before = history[2 * step - 1][0] if step else tree(0, dtype)
        jax.tree.map(np.testing.assert_array_equal, history[2 * step][0], before)
        assert_close(history[2 * step + 1][0], params, dtype)
    assert [int(spa_state(state).count) for _, state in history] == [0, 1, 1, 2, 2, 3]


@when_compiled
def test_apply_if_finite_skips_a_step_that_is_not_finite_and_takes_the_others(case, dtype):
    nans = jax.tree.map(lambda x: x * jnp.nan, tree(9, dtype))
    gradients = [tree(1, dtype), nans, tree(2, dtype), tree(3, dtype)]
    tx = optax.apply_if_finite(optimiser(case), 3)
    history = run(tx, dtype, gradients, lambda t: means(max(0, t - 1)), jit=True)
    assert_close(history[-1][0], plain(case.name, dtype, jit=True), dtype)
    assert [int(spa_state(state).count) for _, state in history] == [1, 1, 2, 3]


@in_dtypes
def test_inject_hyperparams_needs_no_static_args_and_steers_the_strength(case, dtype):
    injected = optax.inject_hyperparams(case.make)(**{case.strength: STRENGTH}, **case.options)
    assert_close(run(optimiser(case, injected), dtype)[-1][0], plain(case.name, dtype), dtype)
    state = injected.init(tree(0, dtype))
    state.hyperparams[case.strength] = jnp.asarray(0.75, DTYPES[dtype])
    assert_close(update(injected, dtype, state)[0], update(link(case, 0.75), dtype)[0], dtype)


@every_case
def test_inject_hyperparams_takes_a_class_axis_as_a_static_argument(case):
    inject = optax.inject_hyperparams(case.make, static_args=("class_axis",))
    tx = inject(**{case.strength: STRENGTH}, class_axis=0, **case.options)
    params, grads = transposed(tree(0)), transposed(tree(1))
    updates, _ = tx.update(grads, tx.init(params), params, class_means=means(0))
    assert_close(transposed(updates), update(link(case))[0])


@every_case
@pytest.mark.usefixtures("untyped")
def test_inject_hyperparams_with_a_traced_class_axis_names_static_args(case):
    inject = optax.inject_hyperparams(case.make)
    with pytest.raises((TypeError, ValueError), match="static_args"):
        inject(class_axis=0, **{case.strength: STRENGTH}).init(transposed(tree(0)))


@in_dtypes
def test_schedule_free_adds_the_unwrapped_step_to_its_base_sequence(case, dtype):
    inner, params = optimiser(case), tree(0, dtype)
    tx = optax.contrib.schedule_free(inner, learning_rate=0.5, b1=0.9)
    state, inner_state = tx.init(params), inner.init(params)
    for t in range(3):
        given = {"params": params, "class_means": means(t)}
        step, inner_state = inner.update(tree(1 + t, dtype), inner_state, **given)
        expected = optax.apply_updates(state.z, step)
        updates, state = tx.update(tree(1 + t, dtype), state, **given)
        assert_close(state.z, expected, dtype)
        params = optax.apply_updates(params, updates)


@when_compiled
def test_a_branch_of_cond_returns_the_state_type_it_was_given(case, dtype):
    tx = optimiser(case)
    take = lambda state: update(tx, dtype, state)  # noqa: E731
    skip = lambda state: (tree(1, dtype), state)  # noqa: E731
    either = jax.jit(lambda go, state: jax.lax.cond(go, take, skip, state))
    state = tx.init(tree(0, dtype))
    for go, branch in ((True, take), (False, skip)):
        taken = either(go, state)
        assert_close(taken, branch(state), dtype)


@in_dtypes
def test_vmap_over_strengths_equals_a_loop(case, dtype):
    step = lambda strength: update(link(case, strength), dtype)  # noqa: E731
    swept = jax.vmap(step)(jnp.asarray([0.0, 0.25, 1.0]))
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(step, [0.0, 0.25, 1.0]))
    assert_close(swept, looped, dtype)
    heads = np.asarray(swept[0]["head"]["kernel"], np.float32)
    assert np.abs(heads[1:] - heads[:-1]).max(axis=(1, 2)).min() > 0.05


@when_compiled
def test_parameters_and_state_can_be_donated_and_later_calls_do_not_compile(case, dtype):
    tx, params = optimiser(case), tree(0, dtype)

    def step(params, state, grads, class_means):
        updates, state = tx.update(grads, state, params, class_means=class_means)
        return optax.apply_updates(params, updates), state

    # keep_unused: every leaf is donated, also those that a step overwrites without reading them.
    step = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
    state = tx.init(params)
    for t in range(3):
        given = params, state
        params, state = step(params, state, tree(1 + t, dtype), means(t))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert step._cache_size() == 1
    assert_close(params, plain(case.name, dtype, jit=True), dtype)


@in_dtypes
def test_unknown_extra_arguments_are_ignored(case, dtype):
    extras = {"value": 1.0, "grad_fn": jnp.sin, "batch": tree(2, dtype)}
    assert_close(update(link(case), dtype, **extras), update(link(case), dtype))


@in_dtypes
def test_the_state_keeps_its_structure_shapes_and_types(case, dtype):
    tx = optimiser(case)
    before, (_, after) = tx.init(tree(0, dtype)), update(tx, dtype)
    assert avals(before) == avals(after)
    described = {"count": ((), jnp.int32)}
    if case.make is spa_jax.spa_proj:
        described |= {"corrected": ((1,), jnp.float32), "removed": ((1,), jnp.float32)}
    fields = spa_state(after)._asdict()
    assert {name: (field.shape, field.dtype) for name, field in fields.items()} == described


@in_dtypes
def test_init_works_on_abstract_parameters(case, dtype):
    shapes = jax.eval_shape(lambda: tree(0, dtype))
    abstract = jax.eval_shape(optimiser(case).init, shapes)
    assert avals(abstract) == avals(optimiser(case).init(tree(0, dtype)))


@when_compiled
def test_a_schedule_is_read_at_the_number_of_steps_already_done(case, dtype):
    table = [0.0, 0.5, 0.125]
    scheduled = link(case, lambda count: jnp.asarray(table, jnp.float32)[count])
    state, step = scheduled.init(tree(0, dtype)), jax.jit(lambda s: update(scheduled, dtype, s))
    for t, strength in enumerate(table):
        assert int(state.count) == t
        updates, state = step(state)
        assert_close(updates, update(link(case, strength), dtype)[0], dtype)


def through_lookahead(tx, params, grads):
    tx = optax.chain(optax.lookahead(tx, sync_period=5, slow_step_size=0.5))
    fast_and_slow = optax.LookaheadParams.init_synced(params)
    tx.update(grads, tx.init(fast_and_slow), fast_and_slow, class_means=means(0))


def refused_by_lookahead(tx, params, grads):
    tx = optax.lookahead(tx, sync_period=5, slow_step_size=0.5)
    fast_and_slow = optax.LookaheadParams.init_synced(params)
    tx.update(grads, tx.init(fast_and_slow), fast_and_slow, class_means=means(0))


def refused_by_sam(tx, params, grads):
    tx = optax.contrib.sam(tx, optax.sgd(0.1), sync_period=2)
    tx.update(grads, tx.init(params), params, class_means=means(0))


def refused_by_a_chain_with_sam(tx, params, grads):
    tx = optax.chain(tx, optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)))
    tx.update(grads, tx.init(params), params, class_means=means(0))


def refused_by_split_real_and_imaginary(tx, params, grads):
    tx = optax.contrib.split_real_and_imaginary(tx)
    tx.update(grads, tx.init(params), params, class_means=means(0))


def through_flax_train_state(tx, params, grads):
    TrainState.create(apply_fn=None, params=params, tx=tx).apply_gradients(grads=grads)


@every_case
@pytest.mark.parametrize("through", [through_lookahead, through_flax_train_state])
def test_what_drops_class_means_fails_with_what_to_pass(case, through):
    with pytest.raises(TypeError, match=r"(?s)update\(.*class_means="):
        through(optimiser(case), tree(0), tree(1))


@pytest.mark.parametrize(
    "refused",
    [
        refused_by_lookahead,
        refused_by_sam,
        refused_by_a_chain_with_sam,
        refused_by_split_real_and_imaginary,
    ],
)
def test_wrappers_that_take_no_extras_refuse_class_means_by_name(refused):
    with pytest.raises(TypeError, match="class_means"):
        refused(optimiser(CASES[0]), tree(0), tree(1))


def test_sam_follows_proj_once_it_ignores_the_extra_arguments():
    sam = optax.contrib.sam(optax.sgd(0.5), optax.sgd(0.1), sync_period=2)
    deaf = optax.GradientTransformationExtraArgs(sam.init, lambda g, s, p, **_: sam.update(g, s, p))
    params, grads, proj = tree(0), tree(1), optimiser(CASES[0])
    edited, _ = proj.update(grads, proj.init(params), params, class_means=means(0))
    desired, _ = sam.update(edited, sam.init(params), params)
    chain = optax.chain(proj, deaf)
    actual, _ = chain.update(grads, chain.init(params), params, class_means=means(0))
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def test_the_step_that_a_train_state_needs_is_told():
    with pytest.raises(TypeError) as raised:
        through_flax_train_state(optimiser(CASES[0]), tree(0), tree(1))
    remedy = str(raised.value).splitlines()[1:]
    assert len(remedy) == 2
    tx = optimiser(CASES[0])
    state = TrainState.create(apply_fn=None, params=tree(0), tx=tx)
    names = {"optax": optax, "state": state, "grads": tree(1), "means": means(0)}
    exec("\n".join(line.strip() for line in remedy), names)
    updates, _ = tx.update(tree(1), tx.init(tree(0)), tree(0), class_means=means(0))
    desired = optax.apply_updates(tree(0), updates)
    jax.tree.map(np.testing.assert_array_equal, names["state"].params, desired)
    assert names["state"].step == 1
