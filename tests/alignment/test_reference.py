"""Every public function of spa_jax.alignment against the float64 equations in reference.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import spa_jax
from tests.alignment import reference
from tests.parameters import first

pytestmark = [
    pytest.mark.device,
    pytest.mark.filterwarnings("ignore:spa_slerp.* turns a bfloat16 kernel"),
]

SEEDS = range(24)


@dataclasses.dataclass(frozen=True)
class Case:
    """One shape and one setting of every option that all the functions share."""

    num_classes: int
    dim: int
    class_axis: int | None = None  # None: kernels are (D, C), 0: (C, D)
    center: bool = True
    heads: int = 1
    plain: bool = False  # the means are a (C, D) array, not a ClassMeans

    def __str__(self):
        axis = "last" if self.class_axis is None else "first"
        heads = f"{self.heads}head{'-plain' * self.plain}"
        return f"C{self.num_classes}-D{self.dim}-{axis}-center{self.center}-{heads}"

    @property
    def options(self):
        paths = tuple(f"fc{h}/kernel" for h in range(self.heads))
        path = {} if self.heads == 1 else {"classifier": paths}
        return {"class_axis": self.class_axis, "center": self.center, **path}


CASES = [
    Case(2, 3),
    Case(5, 2, class_axis=0, plain=True),
    Case(10, 4, center=False, heads=2, plain=True),
    Case(13, 64, class_axis=0, center=False, heads=3),
    Case(30, 16, heads=2),
]
every_case = pytest.mark.parametrize("case", first(3, CASES), ids=str)


def draw_means(rng, case, seed):
    """Means away from the origin, as ReLU features have them, with unseen classes."""
    seen = rng.random(case.num_classes) < 0.8
    if seed < 2:
        seen[seed:] = False  # no class seen, one class seen
    while True:  # until float32 can tell the means apart
        mean = np.abs(rng.normal(size=(case.num_classes, case.dim)))
        if seed == 2:
            mean[:] = mean.max(axis=0)  # the means coincide
        if case.plain:
            mean[~seen] = 0.0  # how a plain array says unseen
        elif seed % 3 == 0:
            mean[-1] = 0.0  # a mean at the origin, seen or not
        mean = mean.astype(np.float32)
        middle = case.center * mean[seen].sum(axis=0) / max(seen.sum(), 1)
        arms = np.linalg.norm(mean - middle, axis=1)
        clear = (arms > 0.1 * np.linalg.norm(mean, axis=1).max()) | (arms == 0)
        if np.all(clear[seen]) or seed < 3:
            return mean, seen


def draw_weights(rng, mu_hats):
    """Weight rows of many lengths, some too short, none too near to its direction for float32."""
    rows = []
    for mu_hat in mu_hats:
        sine = 0.0
        while sine < 0.1:
            w = rng.normal(size=len(mu_hat)) * 10 ** rng.uniform(-3, 3)
            sine = np.sin(reference.tangent(w, mu_hat)[2]) if np.any(mu_hat) else 1.0
        rows.append(w * rng.choice([1.0, 1e-17, 0.0], p=[0.8, 0.1, 0.1]))
    return np.array(rows, np.float32)


@dataclasses.dataclass
class Drawn:
    """One random problem: weights and incoming are (H, C, D), mu_hats the reference directions."""

    weights: np.ndarray
    incoming: np.ndarray
    mu_hats: np.ndarray
    means: object


def draw(case, seed):
    rng = np.random.default_rng([seed, case.num_classes, case.dim])
    mean, seen = draw_means(rng, case, seed)
    mu_hats = reference.directions(mean, seen, case.center)
    weights = np.stack([draw_weights(rng, mu_hats) for _ in range(case.heads)])
    incoming = rng.normal(size=weights.shape) * 10 ** rng.uniform(-3, 3, (*weights.shape[:2], 1))
    if not case.plain:
        mean = spa_jax.ClassMeans(mean=jnp.asarray(mean), seen=jnp.asarray(seen), decay=0.9)
    return Drawn(weights, incoming.astype(np.float32), mu_hats, mean)


def tree(case, rows, dtype=None):
    """A params tree whose classifier kernels hold rows (H, C, D) in the case's layout."""
    leaves = rows if case.class_axis == 0 else np.swapaxes(rows, 1, 2)
    names = ["head"] if case.heads == 1 else [f"fc{h}" for h in range(case.heads)]
    heads = {n: {"kernel": jnp.asarray(x, dtype)} for n, x in zip(names, leaves, strict=True)}
    body = {"kernel": jnp.full((3, 3), 0.1), "bias": jnp.arange(3.0)}
    return {"params": {"body": body, **heads}}


def rows_of(case, params):
    """The classifier rows (H, C, D) of a params tree in float64; the body has to be as built."""
    heads = dict(params["params"])
    built = tree(case, np.zeros((case.heads, 2, 2)))["params"]["body"]
    jax.tree.map(np.testing.assert_array_equal, heads.pop("body"), built)
    rows = np.stack([np.asarray(heads[k]["kernel"].astype(float)) for k in sorted(heads)])
    return rows if case.class_axis == 0 else np.swapaxes(rows, 1, 2)


def assert_rows_close(actual, desired, incoming, tolerance=1e-5, rounding=0.0):
    """Equal within tolerance of each incoming row's length; rows left alone are so bit for bit."""
    alone = np.all(desired == incoming, axis=-1)
    np.testing.assert_array_equal(actual[alone], desired[alone])
    length = np.linalg.norm(incoming.astype(np.float64), axis=-1, keepdims=True)
    allowed = tolerance * length + rounding * np.abs(desired)
    np.testing.assert_array_less(np.abs(actual - desired), allowed + 1e-300)


@pytest.mark.parametrize(
    ("case", "radial"),
    [*((case, "keep") for case in CASES), (CASES[1], "scale"), (CASES[3], "scale")],
    ids=str,
)
def test_proj_is_the_equation(case, radial):
    def update(acts_on, gamma, incoming, params, means):
        tx = spa_jax.spa_proj(gamma, radial=radial, acts_on=acts_on, **case.options)
        return tx.update(incoming, tx.init(params), params, class_means=means)

    @jax.jit
    def both(*args):
        return {acts_on: update(acts_on, *args) for acts_on in ("gradients", "updates")}

    for seed in SEEDS:
        drawn, gamma = draw(case, seed), [0.0, 0.3, 0.6, 1.0][seed % 4]
        trees = tree(case, drawn.incoming), tree(case, drawn.weights)
        for acts_on, (updates, state) in both(jnp.float32(gamma), *trees, drawn.means).items():
            actual = rows_of(case, updates)
            assert state.corrected.shape == state.removed.shape == (case.heads,)
            assert int(state.count) == 1
            for h, (g, w) in enumerate(zip(drawn.incoming, drawn.weights, strict=True)):
                out, corrected = reference.proj(g, w, drawn.mu_hats, gamma, radial, acts_on)
                assert_rows_close(actual[h], out, g)
                removed = np.linalg.norm(out - g) / np.linalg.norm(g)
                np.testing.assert_allclose(state.corrected[h], corrected.mean(), atol=1e-6)
                np.testing.assert_allclose(state.removed[h], removed, atol=1e-5)


def test_proj_follows_a_schedule_of_gamma_step_by_step():
    case, drawn = CASES[0], draw(CASES[0], 5)
    tx = spa_jax.spa_proj(optax.linear_schedule(0.0, 1.0, 4), **case.options)
    params, incoming = tree(case, drawn.weights), tree(case, drawn.incoming)
    state = tx.init(params)
    for step in range(6):
        updates, state = tx.update(incoming, state, params, class_means=drawn.means)
        problem = drawn.incoming[0], drawn.weights[0], drawn.mu_hats
        out, _ = reference.proj(*problem, gamma=min(step / 4, 1.0))
        assert_rows_close(rows_of(case, updates)[0], out, drawn.incoming[0])
        assert int(state.count) == step + 1


@every_case
def test_slerp_is_the_equation(case):
    slerp = jax.jit(lambda p, m, a, t: spa_jax.spa_slerp(p, m, a, t, **case.options))
    for seed in SEEDS:
        drawn = draw(case, seed)
        for alpha, threshold in [(0.02, 0.95), (0.5, 0.2), (1.0, 0.95), (0.3, -0.2), (0.0, 1.0)]:
            params = slerp(tree(case, drawn.weights), drawn.means, alpha, threshold)
            for w, actual in zip(drawn.weights, rows_of(case, params), strict=True):
                out = reference.slerp(w, drawn.mu_hats, alpha, threshold)
                assert_rows_close(actual, out, w)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_slerp_transform_turns_what_each_step_leads_to_by_the_scheduled_alpha(case):
    total, drawn = 5, draw(case, 11)
    alpha = spa_jax.slerp_schedule(0.4, total)
    link = spa_jax.spa_slerp_transform(alpha, threshold=0.9, **case.options)
    tx = optax.chain(optax.sgd(1.0), link)
    grads = 0.05 * np.sign(drawn.incoming) * np.linalg.norm(drawn.weights, axis=-1, keepdims=True)

    @jax.jit
    def step(params, state, means):
        incoming = tree(case, grads)
        incoming["params"]["body"] = jax.tree.map(jnp.zeros_like, incoming["params"]["body"])
        updates, state = tx.update(incoming, state, params, class_means=means)
        return optax.apply_updates(params, updates), state

    params, desired = tree(case, drawn.weights), drawn.weights.astype(np.float64)
    state = tx.init(params)
    for t in range(total + 2):
        params, state = step(params, state, drawn.means)
        alpha = reference.slerp_schedule(0.4, total, t)
        desired = np.stack([reference.slerp(w, drawn.mu_hats, alpha, 0.9) for w in desired - grads])
        assert_rows_close(rows_of(case, params), desired, drawn.weights)


@pytest.mark.parametrize("step", [0, 1, 5, 9, 10, 11, 10_000])
@pytest.mark.parametrize("alpha_max", [0.02, 1.0])
def test_slerp_schedule_is_the_cosine_ramp(step, alpha_max):
    desired = reference.slerp_schedule(alpha_max, 10, step)
    np.testing.assert_allclose(spa_jax.slerp_schedule(alpha_max, 10)(step), desired, atol=1e-6)


@every_case
def test_directions_reg_and_cosines_are_the_equations(case):
    reg = jax.jit(lambda p, m: spa_jax.spa_reg(p, m, **case.options))
    cosines = jax.jit(lambda p, m: spa_jax.class_cosines(p, m, **case.options))
    for seed in SEEDS:
        drawn = draw(case, seed)
        params = tree(case, drawn.weights)
        desired = np.mean([reference.reg(w, drawn.mu_hats) for w in drawn.weights])
        np.testing.assert_allclose(reg(params, drawn.means), desired, atol=1e-5)
        desired = np.stack([reference.cosines(w, drawn.mu_hats) for w in drawn.weights])
        desired = desired[0] if case.heads == 1 else desired
        actual = cosines(params, drawn.means)
        np.testing.assert_allclose(actual, desired, atol=1e-5)
        assert actual.shape == desired.shape
        if not case.plain:
            directions = drawn.means.directions(center=case.center)
            np.testing.assert_allclose(directions, drawn.mu_hats, atol=1e-5)


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_class_means_are_the_equation_over_many_batches(case, soft):
    rng = np.random.default_rng(case.num_classes)
    means = spa_jax.ClassMeans.create(num_classes=case.num_classes, dim=case.dim, decay=0.8)
    mean, seen = means.mean, means.seen
    update = jax.jit(spa_jax.ClassMeans.update)
    for _ in SEEDS:
        features = rng.normal(2.0, 1.0, size=(9, case.dim)).astype(np.float32)
        labels = rng.integers(0, case.num_classes, size=9)
        if soft:
            labels = np.eye(case.num_classes, dtype=np.float32)[labels]
            labels = labels * rng.choice([0.01, 0.3, 1.0], size=(9, 1)).astype(np.float32)
        means = update(means, features, labels)
        mean, seen = reference.update_means(mean, seen, features, labels, 0.8)
        np.testing.assert_array_equal(means.seen, seen)
        np.testing.assert_allclose(means.mean, mean, atol=1e-5)


def assert_outputs_are_the_equations(case, draws, dtype, tolerance, rounding=0.0):
    """Kernels and gradients of dtype through Proj, SLERP, Reg and the cosines."""

    @jax.jit
    def outputs(grads, params, means):
        tx = spa_jax.spa_proj(0.3, **case.options)
        updates, _ = tx.update(grads, tx.init(params), params, class_means=means)
        turned = spa_jax.spa_slerp(params, means, 0.4, 0.95, **case.options)
        functions = spa_jax.spa_reg, spa_jax.class_cosines
        return updates, turned, *(f(params, means, **case.options) for f in functions)

    for drawn in draws:
        params, grads = tree(case, drawn.weights, dtype), tree(case, drawn.incoming, dtype)
        updates, turned, loss, cosines = outputs(grads, params, drawn.means)
        dtypes = [jax.tree.map(lambda x: x.dtype, x) for x in (params, updates, turned)]
        assert dtypes[0] == dtypes[1] == dtypes[2]
        weights, incoming = rows_of(case, params), rows_of(case, grads)
        actual = zip(rows_of(case, updates), rows_of(case, turned), strict=True)
        for (update, turn), g, w in zip(actual, incoming, weights, strict=True):
            out, _ = reference.proj(g, w, drawn.mu_hats, 0.3)
            assert_rows_close(update, out, g, tolerance, rounding)
            out = reference.slerp(w, drawn.mu_hats, 0.4, 0.95)
            assert_rows_close(turn, out, w, tolerance, rounding)
        desired = np.mean([reference.reg(w, drawn.mu_hats) for w in weights])
        np.testing.assert_allclose(loss, desired, atol=tolerance, rtol=rounding)
        desired = [reference.cosines(w, drawn.mu_hats) for w in weights]
        cosines = cosines.reshape(case.heads, case.num_classes)
        np.testing.assert_allclose(cosines, desired, atol=tolerance, rtol=rounding)


@pytest.mark.parametrize("case", [CASES[1], CASES[4]], ids=str)
def test_bfloat16_kernels_stay_bfloat16_and_are_right_to_one_rounding(case):
    draws = [draw(case, seed) for seed in SEEDS]
    assert_outputs_are_the_equations(case, draws, jnp.bfloat16, 1e-5, rounding=2.0**-8)


@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=str)
def test_float64_kernels_are_handled_in_float64(case):
    draws = [draw(case, seed) for seed in SEEDS]
    with jax.enable_x64(True):
        for drawn in draws:
            drawn.weights = drawn.weights * (1 + 1e-10)  # not float32 numbers
            if case.plain:  # a ClassMeans is float32 and may steer in float32
                drawn.means = jnp.asarray(drawn.means, jnp.float64)
        tolerance = 1e-13 if case.plain else 1e-5
        assert_outputs_are_the_equations(case, draws, jnp.float64, tolerance)
