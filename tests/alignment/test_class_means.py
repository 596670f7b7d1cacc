"""The rules of ClassMeans: what a batch changes, what it must not, and the directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import shard_map
from jax.sharding import PartitionSpec as P

import spa_jax
from spa_jax import ClassMeans
from spa_jax.alignment.class_means import class_sums
from tests.alignment import reference

C, D, B = 5, 3, 16


def empty(decay=0.9):
    return ClassMeans.create(num_classes=C, dim=D, decay=decay)


def some_means(seed=0, decay=0.9):
    """Means of which the last class is unseen, whatever its row holds."""
    rng = np.random.default_rng(seed)
    mean = jnp.asarray(rng.normal(size=(C, D)), jnp.float32).at[-1].set(9.0)
    return ClassMeans(mean=mean, seen=jnp.arange(C) < C - 1, decay=decay)


def batch(seed=0, soft=False, size=B):
    rng = np.random.default_rng(seed)
    features = rng.normal(1.0, 1.0, size=(size, D)).astype(np.float32)
    labels = rng.integers(0, C, size=size)
    return features, rng.dirichlet([0.3] * C, size).astype(np.float32) if soft else labels


def assert_same(a, b):
    """Bit for bit the same means."""
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.seen, b.seen)


update = jax.jit(ClassMeans.update)


def test_create_has_seen_no_class():
    means = empty()
    assert (means.mean.shape, means.mean.dtype, means.decay) == ((C, D), jnp.float32, 0.9)
    assert (means.seen.shape, means.seen.dtype) == ((C,), jnp.bool_)
    assert not means.mean.any()
    assert not means.seen.any()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_first_batch_of_a_class_sets_its_mean(decay):
    features = jnp.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [7.0, 7.0, 7.0]])
    means = empty(decay).update(features, jnp.array([1, 1, 4]))
    np.testing.assert_array_equal(means.seen, [False, True, False, False, True])
    np.testing.assert_allclose(means.mean[1], 2.0)
    np.testing.assert_allclose(means.mean[4], 7.0)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 4])
def test_later_batches_move_the_mean_by_one_minus_decay_whatever_their_count(decay, count):
    means = empty(decay).update(jnp.ones((1, D)), jnp.array([2]))
    means = means.update(jnp.full((count, D), 3.0), jnp.full(count, 2))
    np.testing.assert_allclose(means.mean[2], decay * 1.0 + (1 - decay) * 3.0, rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_absent_classes_stay_bit_for_bit(jit, soft):
    means = some_means()
    labels = jnp.array([0, 2, 2])
    labels = jax.nn.one_hot(labels, C) if soft else labels
    after = (update if jit else ClassMeans.update)(means, jnp.ones((3, D)), labels)
    absent = np.array([1, 3, 4])
    np.testing.assert_array_equal(after.mean[absent], means.mean[absent])
    np.testing.assert_array_equal(after.seen, means.seen)
    assert np.all(after.mean[jnp.array([0, 2])] != means.mean[jnp.array([0, 2])])


@pytest.mark.parametrize("count", [1e-6, 0.25, 1.0, 2.0])
def test_a_soft_count_below_one_shortens_the_step(count):
    means = some_means(decay=0.8)
    labels = jnp.zeros((1, C)).at[0, 1].set(count)
    after = means.update(jnp.full((1, D), 5.0), labels)
    step = 0.2 * min(count, 1.0)
    desired = (1 - step) * means.mean[1] + step * 5.0
    np.testing.assert_allclose(after.mean[1], desired, rtol=1e-6)


def test_a_soft_count_below_one_still_sets_a_first_mean():
    labels = jnp.zeros((2, C)).at[:, 3].set(jnp.array([0.1, 0.3]))
    means = empty().update(jnp.array([[4.0] * D, [8.0] * D]), labels)
    np.testing.assert_allclose(means.mean[3], 7.0, rtol=1e-6)
    assert np.array_equal(means.seen, np.arange(C) == 3)


def test_one_hot_rows_are_integer_labels():
    features, labels = batch()
    by_label = some_means().update(features, labels)
    by_row = some_means().update(features, np.eye(C, dtype=np.float32)[labels])
    np.testing.assert_allclose(by_row.mean, by_label.mean, rtol=1e-6)
    np.testing.assert_array_equal(by_row.seen, by_label.seen)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_means_are_float32_sums_whatever_the_features(dtype):
    features, labels = batch(size=500)
    features = jnp.asarray(features, dtype)
    means = update(empty(), features, labels)
    desired, _ = reference.update_means(
        np.zeros((C, D)), np.zeros(C, bool), features.astype(jnp.float32), labels, 0.9
    )
    assert means.mean.dtype == jnp.float32
    np.testing.assert_allclose(means.mean, desired, rtol=1e-5)


def test_means_stay_float32_when_float64_is_enabled():
    features, labels = batch()
    with jax.enable_x64(True):
        means = some_means().update(jnp.asarray(features, jnp.float64), jnp.asarray(labels))
        assert (means.mean.dtype, means.seen.dtype) == (jnp.float32, jnp.bool_)


@pytest.mark.parametrize("label", [-1, C, -C, 1000])
@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_concrete_labels_outside_the_classes_are_refused(label, array):
    with pytest.raises(ValueError, match="label"):
        some_means().update(jnp.ones((2, D)), array([0, label]))


@pytest.mark.parametrize("label", [-1, C, -C, 1000])
def test_traced_labels_outside_the_classes_contribute_nothing(label):
    features = jnp.array([[1.0, 2.0, 3.0], [50.0, jnp.inf, 70.0]])
    with_it = update(some_means(), features, jnp.array([0, label]))
    assert_same(with_it, update(some_means(), features[:1], jnp.array([0])))
    assert not with_it.seen[-1]  # -1 is not the last, rarest class
    assert_same(update(some_means(), features, jnp.array([label, label])), some_means())


def test_an_example_that_is_not_finite_leaves_every_class_alone():
    features = jnp.array([[1.0, 2.0, 3.0], [jnp.nan, 0.0, 0.0], [0.0, jnp.inf, 0.0]])
    with_them = update(some_means(), features, jnp.array([0, 1, 0]))
    assert_same(with_them, update(some_means(), features[:1], jnp.array([0])))


WRONG = {
    "empty batch": (np.ones((0, D), np.float32), np.zeros(0, int)),
    "empty soft batch": (np.ones((0, D), np.float32), np.zeros((0, C), np.float32)),
    "integer features": (np.ones((2, D), int), np.zeros(2, int)),
    "features of another width": (np.ones((2, D + 1), np.float32), np.zeros(2, int)),
    "features with one axis": (np.ones(D, np.float32), np.zeros(1, int)),
    "features with three axes": (np.ones((2, 2, D), np.float32), np.zeros(2, int)),
    "more labels than features": (np.ones((2, D), np.float32), np.zeros(3, int)),
    "one label for two features": (np.ones((2, D), np.float32), np.zeros(1, int)),
    "scalar label": (np.ones((1, D), np.float32), np.array(0)),
    "soft labels of other classes": (np.ones((2, D), np.float32), np.ones((2, C - 1), np.float32)),
    "soft labels of one class": (np.ones((2, D), np.float32), np.ones((2, 1), np.float32)),
    "float labels with one axis": (np.ones((2, D), np.float32), np.zeros(2, np.float32)),
}


@pytest.mark.parametrize(("features", "labels"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("jit", [False, True])
def test_wrong_batches_are_refused(features, labels, jit, untyped):
    call = jax.jit(ClassMeans.update) if jit else ClassMeans.update
    with pytest.raises(ValueError, match=r"features|labels"):
        call(some_means(), jnp.asarray(features), jnp.asarray(labels))


def per_device(means, features, labels):
    return means.update(features, labels, axis_name="data")


def by_pmap(means, features, labels):
    """The update on 8 devices, one result per device."""
    split = [x.reshape(8, -1, *x.shape[1:]) for x in (features, labels)]
    return jax.pmap(per_device, "data", in_axes=(None, 0, 0))(means, *split)


def by_shard_map(means, features, labels):
    """The same, each device's result kept apart by a new leading axis."""

    def one(*shard):
        return jax.tree.map(lambda x: x[None], per_device(*shard))

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": P("data")}
    return jax.jit(shard_map(one, mesh=mesh, check_vma=False, **specs))(means, features, labels)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("spread", [by_pmap, by_shard_map])
def test_eight_devices_agree_with_one_and_with_each_other(spread, soft):
    features, labels = batch(soft=soft, size=24)
    after = spread(some_means(), features, labels)
    whole = some_means().update(features, labels)
    assert after.mean.shape == (8, C, D)
    for device in range(8):
        np.testing.assert_array_equal(after.mean[device], after.mean[0])
        np.testing.assert_array_equal(after.seen[device], whole.seen)
    np.testing.assert_allclose(after.mean[0], whole.mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spread", [by_pmap, by_shard_map])
def test_a_class_that_one_device_alone_has_moves_on_all(spread):
    features, labels = batch(size=8)
    labels = np.where(np.arange(8) == 6, 4, 0)
    after = spread(some_means(), features, labels)
    np.testing.assert_allclose(after.mean[:, 4], np.tile(features[6], (8, 1)), rtol=1e-6)
    assert np.all(after.seen[:, 4])


@pytest.mark.parametrize("soft", [False, True])
def test_devices_talk_once(soft):
    features, labels = batch(soft=soft)
    means = some_means()
    text = jax.jit(by_shard_map).lower(means, features, labels).compile().as_text()
    assert text.count(" all-reduce(") == 1
    assert not any(op in text for op in ("all-gather", "all-to-all", "collective-permute"))


def test_a_global_view_over_sharded_features_agrees_with_one_device():
    features, labels = batch(size=24)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put((features, labels), jax.NamedSharding(mesh, P("data")))
    after, whole = update(some_means(), *sharded), some_means().update(features, labels)
    np.testing.assert_allclose(after.mean, whole.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after.seen, whole.seen)


def test_it_is_a_pytree_of_two_arrays_with_a_static_decay():
    means = some_means(decay=0.7)
    leaves, treedef = jax.tree.flatten(means)
    assert [x.shape for x in leaves] == [(C, D), (C,)]
    again = jax.tree.unflatten(treedef, leaves)
    assert_same(again, means)
    assert again.decay == 0.7
    assert treedef != jax.tree.structure(some_means(decay=0.8))


def test_it_goes_through_jit_scan_and_vmap():
    features, labels = np.stack([batch(s)[0] for s in range(4)]), batch()[1]
    labels = np.stack([labels] * 4)
    looped = some_means()
    for f, y in zip(features, labels, strict=True):
        looped = looped.update(f, y)
    scanned, _ = jax.lax.scan(lambda m, b: (m.update(*b), None), some_means(), (features, labels))
    np.testing.assert_allclose(scanned.mean, looped.mean, rtol=1e-5, atol=1e-6)
    many = jax.vmap(ClassMeans.update, in_axes=(None, 0, 0))(some_means(), features, labels)
    for i in range(4):
        one = some_means().update(features[i], labels[i])
        np.testing.assert_allclose(many.mean[i], one.mean, rtol=1e-5, atol=1e-6)


def test_it_may_be_donated():
    donated = jax.jit(ClassMeans.update, donate_argnums=0)
    means, (features, labels) = some_means(), batch()
    desired, old = update(some_means(), features, labels), means.mean
    after = donated(means, features, labels)
    assert_same(after, desired)
    assert old.is_deleted()
    assert_same(donated(after, features, labels), update(desired, features, labels))


@pytest.mark.parametrize("center", [False, True])
def test_directions_are_unit_rows_from_the_mean_of_the_seen_means_or_the_origin(center):
    means = some_means()
    seen = np.asarray(means.mean)[:4]
    arms = seen - center * seen.mean(axis=0)
    desired = arms / np.linalg.norm(arms, axis=1, keepdims=True)
    np.testing.assert_allclose(means.directions(center=center)[:4], desired, atol=1e-6)
    np.testing.assert_array_equal(means.directions(center=center)[4], 0.0)
    np.testing.assert_array_equal(means.directions(), means.directions(center=True))


def means_of(mean, seen):
    return ClassMeans(mean=jnp.asarray(mean, jnp.float32), seen=jnp.asarray(seen), decay=0.9)


LONG = np.array([[1000.0, 0, 0], [0.01, 0, 0], [1e-4, 0, 0], [0, 0, 0]])
SAME = np.full((4, 3), [0.1, 0.7, 1.3])
ALL, NONE, FIRST = np.ones(4, bool), np.zeros(4, bool), np.arange(4) < 1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("mean", "seen", "center", "has"), [
    pytest.param(LONG, NONE, True, [0, 0, 0, 0], id="no class seen"),
    pytest.param(LONG, NONE, False, [0, 0, 0, 0], id="no class seen, uncentred"),
    pytest.param(LONG, FIRST, True, [0, 0, 0, 0], id="one class seen is its own middle"),
    pytest.param(LONG, FIRST, False, [1, 0, 0, 0], id="one class seen, uncentred"),
    pytest.param(SAME, ALL, True, [0, 0, 0, 0], id="coinciding means"),
    pytest.param(SAME, ALL, False, [1, 1, 1, 1], id="coinciding means, uncentred"),
    pytest.param(LONG, ALL, False, [1, 1, 0, 0], id="a mean shorter than a millionth"),
    pytest.param(LONG, ALL, True, [1, 1, 1, 1], id="a mean at the origin has a centred direction"),
    pytest.param(0 * LONG, ALL, True, [0, 0, 0, 0], id="all means at the origin"),
    pytest.param(0 * LONG, ALL, False, [0, 0, 0, 0], id="all means at the origin, uncentred"),
])  # fmt: skip
def test_classes_without_a_direction_have_zero_rows(mean, seen, center, has, scale):
    directions = means_of(scale * mean, seen).directions(center=center)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), has, atol=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_mean_that_is_not_finite_is_an_unseen_class_and_the_others_keep_their_directions(broken):
    rng = np.random.default_rng(3)
    means = rng.normal(size=(C, D)).astype(np.float32)
    kernel = rng.normal(size=(D, C)).astype(np.float32)
    params = {"head": {"kernel": jnp.asarray(kernel)}}
    unseen, faulty = means.copy(), means.copy()
    unseen[2], faulty[2, 1] = 0.0, broken
    cosines = spa_jax.class_cosines(params, jnp.asarray(faulty))
    np.testing.assert_array_equal(cosines, spa_jax.class_cosines(params, jnp.asarray(unseen)))
    assert cosines[2] == 0 and np.all(np.delete(cosines, 2) != 0)
    assert spa_jax.spa_reg(params, jnp.asarray(faulty)) == pytest.approx(
        1 - np.delete(cosines, 2).mean(), rel=1e-6
    )
    turned = spa_jax.spa_slerp(params, jnp.asarray(faulty), alpha=0.5, threshold=1.0)
    assert np.isfinite(turned["head"]["kernel"]).all()
    np.testing.assert_array_equal(turned["head"]["kernel"][:, 2], kernel[:, 2])
    carried = ClassMeans(mean=jnp.asarray(faulty), seen=jnp.ones(C, bool), decay=0.9)
    np.testing.assert_array_equal(spa_jax.class_cosines(params, carried), cosines)


def test_a_sum_that_overflows_leaves_the_class_as_it_was():
    largest = np.float32(3e38)
    features = jnp.full((2, D), largest)
    new = empty().update(features, jnp.array([1, 1]))
    assert not new.seen.any() and not new.mean.any()
    known = some_means().update(features, jnp.array([1, 1]))
    np.testing.assert_array_equal(known.mean, some_means().mean)
    later = known.update(jnp.ones((1, D)), jnp.array([1]))
    np.testing.assert_allclose(later.mean[1], 0.9 * known.mean[1] + 0.1, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
def test_a_small_label_counts_for_its_class_alone(dtype):
    features, labels = jnp.ones((3, D)), np.array([5, 5, 100], dtype)
    expected = np.zeros(300)
    expected[[5, 100]] = 2, 1
    for sums in (class_sums, jax.jit(class_sums, static_argnums=2)):
        found, counts = sums(features, labels, 300)
        np.testing.assert_array_equal(counts, expected)
        np.testing.assert_array_equal(found[:, 0], expected)


def test_lists_are_arrays():
    means = ClassMeans.create(num_classes=2, dim=2)
    desired = means.update(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 1]))
    actual = means.update([[1.0, 2.0], [3.0, 4.0]], [1, 1])
    jax.tree.map(np.testing.assert_array_equal, actual, desired)
    for sums in (spa_jax.class_sums([[1.0]], [0], 2), spa_jax.class_sums([[1.0]], [[1.0, 0.0]], 2)):
        assert [x.tolist() for x in sums] == [[[1.0], [0.0]], [1.0, 0.0]]


def test_micro_batches_that_are_summed_first_are_the_batch():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(12, 3)).astype(np.float32), rng.integers(0, 4, 12)
    means = ClassMeans.create(num_classes=5, dim=3, decay=0.9).update(features, labels)
    desired = means.update(features[::-1], labels)
    halves = zip(np.split(features[::-1], 2), np.split(labels, 2), strict=True)
    totals = [spa_jax.class_sums(x, y, 5) for x, y in halves]
    actual = means.update_from_sums(*jax.tree.map(jnp.add, *totals))
    np.testing.assert_allclose(actual.mean, desired.mean, atol=1e-6)
    np.testing.assert_array_equal(actual.seen, desired.seen)


def test_a_class_moves_where_its_weight_exceeds_min_count():
    smooth = np.array([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05]], np.float32)
    features = np.array([[2.0], [4.0]], np.float32)
    assert ClassMeans.create(3, 1).update(features, smooth).seen.all()
    means = ClassMeans.create(3, 1, min_count=0.5).update(features, smooth)
    assert means.seen.tolist() == [True, False, False]
    np.testing.assert_allclose(means.mean, [[3.0], [0.0], [0.0]])
    with pytest.raises(ValueError, match="min_count"):
        ClassMeans.create(3, 1, min_count=-1.0)


@pytest.mark.parametrize("soft", [False, True])
def test_a_batch_over_a_mesh_with_explicit_axes_is_gathered(soft):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(16, 3)).astype(np.float32), rng.integers(0, 4, 16)
    labels = np.eye(4, dtype=np.float32)[labels] if soft else labels
    means = ClassMeans.create(num_classes=4, dim=3)
    desired = means.update(features, labels)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        split = [jax.device_put(x, jax.P("data")) for x in (features, labels)]
        actual = jax.jit(ClassMeans.update)(means, *split)
        np.testing.assert_allclose(actual.mean, desired.mean, atol=1e-6)
    actual = means.update(*split)  # without a mesh in context
    np.testing.assert_allclose(actual.mean, desired.mean, atol=1e-6)


@pytest.mark.parametrize("dim", [4, 64])
def test_coinciding_means_of_many_classes_have_no_direction(dim):
    row = np.random.default_rng(0).normal(size=(1, dim)).astype(np.float32)
    means = ClassMeans(jnp.repeat(jnp.asarray(row), 10_000, 0), jnp.ones(10_000, bool))
    assert not jax.jit(ClassMeans.directions)(means).any()
    params = {"head": {"kernel": jnp.ones((dim, 10_000))}}
    assert not jax.jit(spa_jax.class_cosines)(params, means).any()


def test_a_step_that_overflows_leaves_the_class_as_it_was():
    means = ClassMeans.create(2, 1).update(np.array([[3e38]], np.float32), np.array([0]))
    after = means.update(np.array([[-3e38]], np.float32), np.array([0]))
    np.testing.assert_array_equal(after.mean, means.mean)
